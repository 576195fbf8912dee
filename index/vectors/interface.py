"""What every view of a collection's vectors offers: in memory (`view.VectorView`), or in a database of vectors."""

from pathlib import Path
from typing import Protocol

from numpy.typing import NDArray

from index.vectors.rows import Groups, Ids, Mask, Vectors
from index.vectors.view import Built, QuerySource, ViewStats


class View(Protocol):
    """The nearest passages by their vectors: derived from the collection's database, and made anew from it at any
    time. Any number of threads may search while others change and maintain it.

    Which documents a search may return is said by the caller, who knows permissions and attributes; a view knows
    of each passage its id, the number of its document and its vector. A search either sees every change that was
    made before it began, or raises UnavailableError.
    """

    @property
    def dimension(self) -> int: ...

    @property
    def max_id(self) -> int:
        """The largest id ever added, removed ones too; -1 where none was."""

    @property
    def questions_source(self) -> QuerySource | None:
        """Of the questions that measure() was given; None: none yet."""

    def ids(self) -> Ids:
        """Of the passages that can be found, ascending."""

    def add(self, ids: Ids, groups: Groups, vectors: Vectors) -> None:
        """ids: int64 [n], ascending, above all before; groups: int32 [n], the number of each one's document;
        vectors: float32 [n, dimension], rows of length 1."""

    def remove(self, ids: Ids) -> None:
        """Ids that are not there are passed over."""

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Vectors, Ids]:
        """The k nearest of documents that are allowed (None: of all), by inner product, best first.

        queries: float32 [queries, dimension], rows of length 1; allowed: bool [documents]: a passage of a
        document without an entry is not returned.

        Returns: scores float32 and ids int64 [queries, found], found <= k; -inf and -1 fill shorter lines.
        """

    def maintain(self) -> bool:
        """One step of what can wait. Returns: whether more is left."""

    def take_built(self) -> list[Built]:
        """What maintain() built since this was asked last."""

    def measure(self, queries: NDArray, source: QuerySource) -> None:
        """Tunes a search that approximates with these questions. Asked only where `stats` tells an effort."""

    def stats(self) -> ViewStats: ...

    def save(self, folder: Path) -> None:
        """Leaves in the folder what makes the next opening quicker, if there is such a thing."""
