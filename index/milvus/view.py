"""The vectors of one generation in Milvus, kept in step with the collection's database.

A change that Milvus does not take is stored all the same: the view then knows that it lags, is brought up to date
by upkeep or by the next search, and no search is answered from it before.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.milvus.client import EndedError, Line, LostCollectionError, MilvusCollection
from index.milvus.expressions import expressions
from index.milvus.outage import Outage
from index.milvus.truth import Block, Stamped, Truth
from index.vectors.brute_force import Found, merged, nothing, stacked
from index.vectors.filters import permitted
from index.vectors.rows import Ids, Mask, Vectors, checked_groups, checked_ids, checked_queries, checked_vectors
from index.vectors.view import Built, QuerySource, ViewStats
from local_llm.errors import LocalLLMError, UnavailableError

# A search waits so long for whoever fills Milvus: enough to be told of some changes. The server answers 40 requests
# at once, and a fill can take hours.
SEARCH_WAIT_SECONDS = 1.0


class MilvusView:
    """See `index.vectors.interface.View`. In step with the database after the first search or maintenance."""

    questions_source: QuerySource | None = None

    def __init__(self, collection: MilvusCollection, truth: Truth):
        self._collection = collection
        self._options = collection.options
        self._truth = truth
        self._changing = threading.Lock()  # held by whoever tells Milvus of changes
        self._counting = threading.Lock()
        self._missed = 1  # changes that Milvus was not told of, and of how many it was told afterwards
        self._settled = 0
        self._max_id = -1
        self._rows = 0
        self._dropped = False
        self._outage = Outage()

    @property
    def name(self) -> str:
        """Of the collection in Milvus."""
        return self._collection.name

    @property
    def dimension(self) -> int:
        return self._truth.dimension

    @property
    def max_id(self) -> int:
        return self._max_id

    @property
    def lags(self) -> bool:
        return self._settled != self._missed

    # Changing

    def add(self, ids: Ids, groups: NDArray[np.int32], vectors: Vectors) -> None:
        vectors = checked_vectors(vectors, self.dimension, "vectors")
        groups = checked_groups(groups, len(vectors))
        ids = checked_ids(ids, -1, len(vectors))  # whoever brings it up to date may have been here before
        if not len(ids):
            return
        self._max_id = max(self._max_id, int(ids[-1]))
        self._rows += len(ids)
        self._tell(lambda: self._collection.upsert(Block(ids, self._truth.stamps_of(groups), groups, vectors)))

    def remove(self, ids: Ids) -> None:
        self._rows -= len(ids)
        self._tell(lambda: self._collection.delete(np.asarray(ids, np.int64)))

    def _tell(self, change: Callable[[], None]) -> None:
        """Never waits for whoever fills Milvus: the database is locked meanwhile."""
        if not self.lags and self._changing.acquire(blocking=False):
            try:
                change()
                return
            except LocalLLMError:  # told by the next search, and by upkeep
                pass
            finally:
                self._changing.release()
        self._miss()

    def _miss(self) -> None:
        with self._counting:
            self._missed += 1

    # Searching

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Vectors, Ids]:
        """Raises: UnavailableError while Milvus does not answer, or is being filled."""
        queries = checked_queries(queries, k, allowed, self.dimension)
        try:
            with self._outage.watched():
                return self._searched(queries, k, allowed)
        except UnavailableError:
            if not self._dropped:
                raise
        return nothing(len(queries))  # another generation has taken its place: whoever asks, asks that one next

    def _searched(self, queries: Vectors, k: int, allowed: Mask | None) -> Found:
        """Tried once more after a failure that came at once."""
        began = time.monotonic()
        self._settle(SEARCH_WAIT_SECONDS)
        try:
            return self._search(queries, k, allowed)
        except LostCollectionError:  # somebody dropped it there: filled anew
            self._miss()
        except UnavailableError:  # also where Milvus was started again since it was asked last
            if time.monotonic() - began >= self._options.timeout_seconds:
                raise
        self._settle(SEARCH_WAIT_SECONDS)
        try:
            return self._search(queries, k, allowed)
        except LostCollectionError:
            self._miss()
            raise

    def _search(self, queries: Vectors, k: int, allowed: Mask | None) -> Found:
        lines = [nothing(1)] * len(queries)
        for expression in expressions(allowed):
            found = self._collection.search(queries, k, expression)
            lines = [merged(line, _admitted(one, allowed), k) for line, one in zip(lines, found, strict=True)]
        return lines[0] if len(lines) == 1 else stacked(lines)

    # In step with the database

    def maintain(self) -> bool:
        """Raises: UnavailableError."""
        with suppress(EndedError):
            self._settle(None)
        return False

    def _settle(self, patience_seconds: float | None) -> None:
        """In step on return with all that had been changed when it was called. None: waits as long as it takes."""
        if not self.lags:
            return
        if not self._changing.acquire(timeout=-1 if patience_seconds is None else patience_seconds):
            raise UnavailableError(
                f"{self._collection.name} in Milvus is being filled from the collection's database",
                hint="ask again in a while",
                retry_after_seconds=10,
            )
        try:
            if self.lags:
                missed = self._missed  # what is missed from here on is for the next time
                self._bring_up_to_date()
                self._settled = missed
                self._outage.is_over()
        finally:
            self._changing.release()

    def _bring_up_to_date(self) -> None:
        self._collection.ensure()
        if self._dropped:  # after it was dropped it may have been made again just now
            self._collection.drop()
        held, there = self._collection.passages(), self._truth.passages()
        self._collection.delete(_without(held, there).ids)
        for block in self._truth.blocks(_without(there, held)):
            self._collection.upsert(block)
        self._rows = len(there.ids)
        self._max_id = max(self._max_id, int(there.ids.max(initial=-1)))

    def ids(self) -> Ids:
        self._settle(self._options.timeout_seconds)
        return self._collection.passages().ids

    def leave(self) -> None:
        """Whoever fills Milvus stops soon, and nobody begins again. Waits for nobody."""
        self._collection.ended.set()

    def dropped(self) -> None:
        """Call it before the collection in Milvus is dropped: it is not to be filled again. Waits for nobody."""
        self._dropped = True
        self.leave()

    # What Milvus does by itself

    def take_built(self) -> list[Built]:
        return []

    def measure(self, queries: NDArray, source: QuerySource) -> None:
        """Milvus chooses its own effort."""

    def save(self, folder: Path) -> None:
        """Milvus keeps what it was told."""

    def stats(self) -> ViewStats:
        """As far as it is known without asking; how well an index of Milvus's own approximates is not."""
        return ViewStats(
            structure="milvus",
            rows=self._rows,
            tail=0,
            tombstones=0,
            bytes=0,
            recall=1.0 if self._collection.exact else None,
            recall_queries=0,
            recall_source=None,
            target_recall=self._options.target_recall,
            effort=None,
            below_target=False,
        )


def _without(one: Stamped, other: Stamped) -> Stamped:
    """Passages of the one that the other does not have with the same stamp. Ids of both ascend, each once."""
    if not len(other.ids):
        return one
    places = np.minimum(np.searchsorted(other.ids, one.ids), len(other.ids) - 1)
    same = (other.ids[places] == one.ids) & (other.stamps[places] == one.stamps)
    return Stamped(one.ids[~same], one.stamps[~same])


def _admitted(line: Line, allowed: Mask | None) -> Found:
    """What Milvus returned, looked at once more: it was told what to leave out, and nothing rests on that alone."""
    if allowed is not None:
        seen = permitted(line.documents, allowed)
        line = Line(line.scores[seen], line.ids[seen], line.documents[seen])
    return line.scores[None], line.ids[None]
