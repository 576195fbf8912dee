"""Where the vectors of a collection are held: what its store asks of whoever holds them."""

from typing import Protocol

from index.collection.database import Database
from index.vectors.interface import View


class Views(Protocol):
    """In memory by FAISS (`live_view.InMemory`), or in Milvus (`index.milvus.views.OnMilvus`)."""

    def open(self, database: Database, generation: int, dimension: int) -> View:
        """The view of a generation, in step with the database. Call it while nothing is written."""

    def leave(self, database: Database) -> None:
        """The collection is about to be closed: what is being done for its views and can wait for its next opening
        ends soon. Waits for nobody."""

    def bytes(self, database: Database, generation: int) -> int:
        """What it takes on this disk."""

    def drop(self, database: Database, *, but: int) -> None:
        """Forgets the views of all generations of the collection but one."""
