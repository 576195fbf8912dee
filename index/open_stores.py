"""The collections that are open, and the thread that looks after them between searches."""

import sys
import threading
from pathlib import Path

from index.collection.store import CollectionStore, Sample
from index.vectors.view import ViewOptions
from local_llm.errors import LocalLLMError
from local_llm.settings import IndexSettings

UPKEEP_SECONDS = 1.0


class OpenStores:
    """Opened by the first who asks, closed with this. Methods may be called from several threads."""

    def __init__(self, settings: IndexSettings, sample: Sample):
        """`sample` makes queries of what a store holds, to measure searches with."""
        self._settings = settings
        self._sample = sample
        self._stores: dict[str, CollectionStore] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._upkeep: threading.Thread | None = None

    def open(self, identifier: str, database: Path) -> CollectionStore:
        with self._lock:
            if identifier not in self._stores:
                self._stores[identifier] = CollectionStore(database, self._options)
            return self._stores[identifier]

    def close(self, identifier: str, *, gone: bool = False) -> None:
        """`gone`: the collection was deleted; no snapshot is written."""
        with self._lock:
            store = self._stores.pop(identifier, None)
        if store is not None:
            store.close(snapshot=not gone)

    def close_all(self) -> None:
        self._ended.set()
        if self._upkeep is not None:
            self._upkeep.join()
        for identifier in list(self._stores):
            self.close(identifier)

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
                self._ended.wait(UPKEEP_SECONDS)

    def _step(self) -> bool:
        """One step for each collection. Returns: whether more is left."""
        more = False
        for identifier, store in list(self._stores.items()):
            if not self._ended.is_set() and identifier in self._stores:
                more = self._maintain(store) or more
        return more

    def _maintain(self, store: CollectionStore) -> bool:
        try:
            return store.maintain(self._sample)
        except LocalLLMError as error:  # a full disk, an encoder that is gone: nothing of it is lost by waiting
            print(f"upkeep: {error.message}", file=sys.stderr)  # noqa: T201
            return False

    def _options(self, dimension: int) -> ViewOptions:
        chosen = self._settings
        return ViewOptions(
            dimension=dimension,
            device=chosen.device,
            structure=chosen.structure,
            target_recall=chosen.target_recall,
        )
