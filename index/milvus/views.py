"""The views of collections on Milvus: their names there, opened and dropped."""

import threading
from hashlib import blake2b
from pathlib import Path
from weakref import WeakSet

from index.collection.database import Database
from index.collection.live_view import snapshot_bytes
from index.milvus.client import Milvus, MilvusCollection, MilvusOptions
from index.milvus.truth import Truth
from index.milvus.view import MilvusView


class OnMilvus:
    """See `index.collection.views.Views`. Opening asks Milvus nothing: what it holds is compared with the database
    by the first search or maintenance, so that a collection can be written to while Milvus is away."""

    def __init__(self, options: MilvusOptions):
        self._milvus = Milvus(options)
        self._open: WeakSet[MilvusView] = WeakSet()
        self._opening = threading.Lock()

    def close(self) -> None:
        self._milvus.close()

    def open(self, database: Database, generation: int, dimension: int) -> MilvusView:
        name = self._name(database, generation)
        view = MilvusView(MilvusCollection(self._milvus, name, dimension), Truth(database, generation, dimension))
        with self._opening:
            self._open.add(view)
        return view

    def leave(self, database: Database) -> None:
        for view in self._opened(database.path):
            view.leave()

    def bytes(self, database: Database, generation: int) -> int:
        return snapshot_bytes(database, generation)  # left from when it was held in memory

    def drop(self, database: Database, *, but: int) -> None:
        self._drop(database.path, but=self._name(database, but))

    def forget(self, path: Path) -> None:
        """Drops all views of the collection with this database. Raises: UnavailableError."""
        self._drop(path, but=None)

    def _drop(self, path: Path, *, but: str | None) -> None:
        for view in self._opened(path):
            if view.name != but:
                view.dropped()
        for name in self._milvus.names(self._beginning(path)):
            if name != but:
                self._milvus.drop(name)

    def _opened(self, path: Path) -> list[MilvusView]:
        with self._opening:
            return [view for view in self._open if view.name.startswith(self._beginning(path))]

    def _name(self, database: Database, generation: int) -> str:
        """Tells the encoder too: after a backup was put back a generation's number is given again, and neither ids
        nor stamps know whose vectors Milvus holds."""
        query = "SELECT fingerprint FROM generations WHERE number = :number"
        fingerprint = database.read(query, number=generation)[0]["fingerprint"]
        encoder = blake2b(fingerprint.encode(), digest_size=4).hexdigest()  # of letters that a name may have
        return f"{self._beginning(database.path)}{generation}_{encoder}"

    def _beginning(self, path: Path) -> str:
        """A collection's folder is named by its id, which is never another's."""
        return f"{self._milvus.options.prefix}_{path.parent.name}_"
