"""The load of the kill benchmark: an index server to be killed, and clients that remember what it acknowledged."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from index.client import IndexClient
from index.collection.store import SnapshotPolicy
from index.interface import EVERYONE, Index, Record, Source
from index.open_stores import UpkeepPolicy
from local_llm.errors import UnavailableError
from local_llm.permissions import Caller
from local_llm.settings import Settings, load_settings

DIMENSION = 32
PRINCIPALS = ("user:ana", "user:ben", "group:support")
# Upkeep hardly rests and a snapshot is as good as always due.
BUSY = UpkeepPolicy(seconds=0.02, snapshots=SnapshotPolicy(passages=10, share=0.0))


def settings_of(home: Path, structure: str) -> Settings:
    return load_settings(
        environment={
            "LOCAL_LLM_HOME": str(home),
            "LOCAL_LLM_INDEX__STRUCTURE": structure,
            "LOCAL_LLM_INDEX__DEVICE": "cpu",
        }
    )


def serve(home: Path, structure: str) -> None:
    """What `python -m index` does, without an encoder and with upkeep that never rests."""
    from index.access import index_lock
    from index.server import listening, make_server
    from index.service import IndexService
    from local_llm.state import open_state

    settings = settings_of(home, structure)
    place = settings.place.ensure()
    with index_lock(place), closing(open_state(place)) as state:
        service = IndexService(settings, state, BUSY)
        service.start_upkeep()
        with listening(place.socket("index")) as listener:
            make_server(service).run(sockets=[listener])


@dataclass(frozen=True)
class Stored:
    """A document as it was sent. `serial` is a word that no other version of any document has."""

    serial: str
    text: str
    allow: tuple[str, ...] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    vector: list[float] | None = None


@dataclass
class Journal:
    """What one client knows: of its documents (None: removed), of its change in flight, of words long gone."""

    acknowledged: dict[str, Stored | None] = field(default_factory=dict)
    in_flight: dict[str, Stored | None] = field(default_factory=dict)
    whole: bool = True  # the change in flight is to happen at once, for all its documents
    gone: list[str] = field(default_factory=list)
    changes: int = 0
    late: int = 0  # changes that the first search after them did not see
    slowest_seconds: float = 0.0  # from a change sent to its being found

    def present(self) -> list[str]:
        return [name for name, stored in self.acknowledged.items() if stored is not None]

    def acknowledge(self) -> None:
        for name, stored in self.in_flight.items():
            self.learn(name, stored)
        self.in_flight = {}
        self.changes += 1

    def learn(self, name: str, stored: Stored | None) -> None:
        old, self.acknowledged[name] = self.acknowledged.get(name), stored
        if old is not None and (stored is None or stored.serial != old.serial):
            self.gone = [*self.gone[-200:], old.serial]


class Client(threading.Thread):
    """Changes documents of its own, and searches for some of them, until the server is gone."""

    def __init__(self, socket: Path, caller: Caller, collection: str, number: int, journal: Journal, seed: int):
        super().__init__(name=f"client {number}")
        self._socket, self._caller, self._collection = socket, caller, collection
        self._number, self._journal = number, journal
        self._random = random.Random(seed)
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with IndexClient(self._socket) as index:
                while True:
                    self.change(index)
        except UnavailableError:
            return
        except BaseException as error:
            self.error = error

    def add_first(self, index: Index, count: int) -> None:
        self.allow = some_allow(self._random)
        names = [f"{self._number}/first-{len(self._journal.acknowledged) + at}" for at in range(count)]
        self._journal.in_flight = {name: self.new_version(name) for name in names}
        self.put(index, self._journal.in_flight)
        self._journal.acknowledge()

    def change(self, index: Index) -> None:
        journal, rng = self._journal, self._random
        present = journal.present()
        kind = rng.choice(["put", "put", "put", "access", "remove"]) if len(present) > 50 else "put"
        started = time.monotonic()
        if kind == "put":
            journal.in_flight = {name: self.new_version(name) for name in self.some_names(present)}
            self.put(index, journal.in_flight)
        elif kind == "remove":
            journal.in_flight = dict.fromkeys(rng.sample(present, rng.choice([1, 1, 5])))
            index.remove(self._caller, self._collection, list(journal.in_flight))
        else:
            name = rng.choice(present)
            old = journal.acknowledged[name]
            assert old is not None
            new = Stored(old.serial, old.text, some_allow(rng), some_attributes(rng), old.vector)
            journal.in_flight = {name: new}
            allow = (EVERYONE,) if new.allow is None else new.allow
            index.set_access(self._caller, self._collection, name, allow=allow, attributes=new.attributes)
        changed = dict(journal.in_flight)
        journal.acknowledge()
        self.look_for(index, changed, started)

    def put(self, index: Index, versions: dict[str, Stored | None]) -> None:
        """Permissions are those of a call: documents of equal ones go together."""
        (allow,) = {one.allow for one in versions.values() if one is not None}
        records = [
            Record(name, one.text, attributes=one.attributes, vector=one.vector)
            for name, one in versions.items()
            if one is not None
        ]
        index.put(self._caller, self._collection, records, allow=(EVERYONE,) if allow is None else allow)

    def new_version(self, name: str) -> Stored:
        rng = self._random
        serial = f"w{self._number}x{rng.randrange(16**10):x}"
        vector = np.random.default_rng(rng.randrange(2**32)).standard_normal(DIMENSION).tolist()
        return Stored(serial, f"{serial} of {name}", self.allow, some_attributes(rng), vector)

    def some_names(self, present: list[str]) -> list[str]:
        rng = self._random
        self.allow = some_allow(rng)
        count = rng.choice([1, 1, 3, 20])
        old = rng.sample(present, min(len(present), count // 2 if rng.random() < 0.7 else count))
        new = [f"{self._number}/{rng.randrange(2000)}" for _ in range(count - len(old))]
        return sorted({*old, *new})

    def look_for(self, index: Index, changed: dict[str, Stored | None], started: float) -> None:
        """What was acknowledged is found by the very next search, and what was removed is not."""
        name, stored = self._random.choice(list(changed.items()))
        if stored is None or stored.vector is None:
            return
        hits = index.search(self._caller, self._collection, stored.vector, 1)
        found = [(hit.document, hit.text) for hit in hits] == [(name, stored.text)]
        self._journal.late += not found
        self._journal.slowest_seconds = max(self._journal.slowest_seconds, time.monotonic() - started)


class FileClient(Client):
    """The same with files, which the server reads, splits and encodes; each is whole or not there."""

    def __init__(self, *arguments: Any, folder: Path):
        super().__init__(*arguments)
        self._folder = folder
        self._journal.whole = False

    def put(self, index: Index, versions: dict[str, Stored | None]) -> None:
        (allow,) = {one.allow for one in versions.values() if one is not None}
        sources = list(self.written(versions))
        attributes = {"client": self._number}
        index.add(
            self._caller,
            self._collection,
            sources,
            allow=(EVERYONE,) if allow is None else allow,
            attributes=attributes,
        )

    def written(self, versions: dict[str, Stored | None]) -> Iterator[Source]:
        for name, one in versions.items():
            if one is not None:
                path = self._folder / f"{one.serial}.txt"
                path.write_text(one.text, encoding="utf-8")
                yield Source(path, name, path.name)

    def new_version(self, name: str) -> Stored:
        rng = self._random
        serial = f"w{self._number}x{rng.randrange(16**10):x}"
        words = " ".join(f"{rng.randrange(16**4):x}" for _ in range(rng.choice([20, 200])))
        return Stored(serial, f"{serial} of {name}\n\n{words}", self.allow, {"client": self._number})


def some_allow(rng: random.Random) -> tuple[str, ...] | None:
    return None if rng.random() < 0.4 else tuple(sorted(rng.sample(PRINCIPALS, rng.choice([0, 1, 2]))))


def some_attributes(rng: random.Random) -> dict[str, Any]:
    return {"year": rng.choice([2020, 2021.5, 1]), "open": rng.choice([True, False, 1])}
