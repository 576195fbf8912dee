"""The views of collections on Milvus: their names there, opened and dropped."""

from hashlib import blake2b
from pathlib import Path
from weakref import WeakValueDictionary

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
        self._open: WeakValueDictionary[str, MilvusView] = WeakValueDictionary()

    def close(self) -> None:
        self._milvus.close()

    def open(self, database: Database, generation: int, dimension: int) -> MilvusView:
        name = self._name(database, generation)
        view = MilvusView(MilvusCollection(self._milvus, name, dimension), Truth(database, generation, dimension))
        self._open[name] = view
        return view

    def bytes(self, database: Database, generation: int) -> int:
        return snapshot_bytes(database, generation)  # left from when it was held in memory

    def drop(self, database: Database, *, but: int) -> None:
        self._drop(database.path, but=self._name(database, but))

    def forget(self, path: Path) -> None:
        """Drops all views of the collection with this database. Raises: UnavailableError."""
        self._drop(path, but=None)

    def _drop(self, path: Path, *, but: str | None) -> None:
        for name in self._milvus.names(self._beginning(path)):
            if name != but:
                view = self._open.get(name)  # once: it can be collected between two looks
                if view is not None:
                    view.dropped()
                self._milvus.drop(name)

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
