"""The collections that are open, and the thread that looks after them between searches."""

import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from index.collection.attachments import Attachments
from index.collection.database import Database
from index.collection.store import CollectionStore, Sample, SnapshotPolicy
from index.vectors.view import Built
from index.view_places import ViewPlaces
from local_llm.errors import LocalLLMError
from local_llm.index_settings import IndexSettings


@dataclass(frozen=True)
class UpkeepPolicy:
    """How long upkeep rests when nothing is left to do, and when snapshots are written anew."""

    seconds: float = 1.0
    snapshots: SnapshotPolicy = field(default_factory=SnapshotPolicy)


Prepare = Callable[[CollectionStore], None]
TellBuilt = Callable[[str, Built], None]


class OpenStores:
    """Opened by the first who asks, closed with this. Methods may be called from several threads."""

    def __init__(
        self, settings: IndexSettings, sample: Sample, upkeep: UpkeepPolicy | None = None, *, built: TellBuilt
    ):
        """`sample` makes queries of what a store holds, to measure searches with. `built` is told, with the id of
        the collection, when upkeep has built a structure."""
        self._views = ViewPlaces(settings)
        self._sample = sample
        self._built = built
        self._policy = upkeep or UpkeepPolicy()
        self._stores: dict[str, CollectionStore] = {}
        self._opening: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()  # held for a moment only: opening one collection holds up no other
        self._ended = threading.Event()
        self._upkeep: threading.Thread | None = None
        self._told: dict[str, str] = {}  # the last complaint of each collection's upkeep

    def open(self, identifier: str, database: Path, prepare: Prepare) -> CollectionStore:
        """`prepare` is called with a store before anybody else has it.

        Raises: NotFoundError, IntegrityError.
        """
        store = self._stores.get(identifier)
        if store is not None:
            return store
        with self._lock:
            opening = self._opening[identifier]
        with opening:
            if identifier not in self._stores:
                self._stores[identifier] = self._opened(identifier, database, prepare)
            return self._stores[identifier]

    def is_open(self, identifier: str) -> bool:
        return identifier in self._stores

    @contextmanager
    def attachments(self, identifier: str, database: Path) -> Iterator[Attachments]:
        """The files of a collection, without having its vectors read where it is not open."""
        store = self._stores.get(identifier)
        if store is not None:
            yield store.attachments
            return
        opened = Database(database)
        try:
            yield Attachments(opened)
        finally:
            opened.close()

    def _opened(self, identifier: str, database: Path, prepare: Prepare) -> CollectionStore:
        store = CollectionStore(database, self._views.of(identifier), self._policy.snapshots)
        try:
            prepare(store)
        except BaseException:
            store.close(snapshot=False)
            raise
        return store

    def close(self, identifier: str, *, gone: bool = False) -> None:
        """`gone`: the collection was deleted; no snapshot is written."""
        with self._lock:
            opening = self._opening[identifier]
        with opening:
            store = self._stores.pop(identifier, None)
            if store is not None:
                store.close(snapshot=not gone)

    def close_all(self) -> None:
        self._ended.set()
        for store in list(self._stores.values()):
            store.leave()
        if self._upkeep is not None:
            self._upkeep.join()
        for identifier in list(self._stores):
            try:
                self.close(identifier)
            except LocalLLMError as error:  # what is lost is a snapshot, and nothing of the collection
                self._tell(identifier, error.message)
        self._views.close()

    def forget(self, database: Path) -> None:
        """For a collection that was deleted and closed: nothing of it stays outside its folder.

        Raises: UnavailableError.
        """
        self._views.forget(database)

    def start_upkeep(self) -> None:
        """From now on a thread does what can wait."""
        self._upkeep = threading.Thread(target=self._keep_up, name="upkeep", daemon=True)
        self._upkeep.start()

    def settle(self) -> None:
        """Does all that can wait, for a process that ends when its one command is done."""
        while self._step():
            pass

    def _keep_up(self) -> None:
        while not self._ended.is_set():
            if not self._step():
                self._ended.wait(self._policy.seconds)

    def _step(self) -> bool:
        """One step for each collection. Returns: whether more is left."""
        more = False
        for identifier, store in list(self._stores.items()):
            if not self._ended.is_set() and identifier in self._stores:
                more = self._maintain(identifier, store) or more
        return more

    def _maintain(self, identifier: str, store: CollectionStore) -> bool:
        try:
            more = store.maintain(self._sample)
            for built in store.take_built():
                self._built(identifier, built)
        except LocalLLMError as error:  # a full disk, an encoder that is gone: nothing of it is lost by waiting
            self._tell(identifier, error.message)
            return False
        except Exception as error:  # whatever is wrong with one collection, the others are looked after
            self._tell(identifier, f"{type(error).__name__}: {error}")
            return False
        self._told.pop(identifier, None)
        return more

    def _tell(self, identifier: str, complaint: str) -> None:
        """Once, however often it is met."""
        if self._told.get(identifier) != complaint:
            self._told[identifier] = complaint
            print(f"upkeep of {identifier}: {complaint}", file=sys.stderr)  # noqa: T201
