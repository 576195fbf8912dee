"""What a search sees: rows, the structure over the first of them, and how much of it to look at."""

from dataclasses import dataclass

import numpy as np

from index.vectors import brute_force
from index.vectors.access_lock import AccessLock
from index.vectors.brute_force import Found, RowNumbers
from index.vectors.effort import Effort, unmeasured
from index.vectors.filters import FilterCache, Visible, visible_rows
from index.vectors.inverted_lists import InvertedLists
from index.vectors.rows import Ids, Mask, RowStore, Vectors

# Costs in scorings of one row by itself (0.1 microseconds at 384 dimensions). Source: docs/benchmarks.md.
CODE_COST = 0.06
LIST_COST = 0.4
CALL_COST = 500.0


@dataclass(frozen=True)
class Tuning:
    """recall: None where it was never measured. rows: that the structure covered then."""

    effort: Effort
    recall: float | None = None
    queries: int = 0
    source: str | None = None
    rows: int = 0


class Generation:
    """Replaced as a whole when rows are moved or the structure is built anew; else it only grows.

    Rows 0..lists.count-1 are found through the lists; those after them, the tail, by scoring each.
    """

    def __init__(
        self,
        store: RowStore,
        lists: InvertedLists | None = None,
        tuning: Tuning | None = None,
        trained_rows: int = 0,
    ):
        self.store = store
        self.lists = lists
        self.trained_rows = trained_rows  # when the centroids were found
        self.tuning = tuning or Tuning(unmeasured(lists.lists if lists else 1))
        self.lock = AccessLock()  # read by searches of the lists, written by what appends to them
        self._filters = FilterCache()

    def strike_out(self, ids: Ids) -> None:
        self._filters.strike_out(self.store.strike_out(ids))

    def fold(self, limit: int) -> None:
        """Takes the first `limit` rows of the tail into the lists."""
        if self.lists is not None:
            start = self.lists.count
            vectors = self.store.rows.vectors[start : start + limit]
            with self.lock.writing():
                self.lists.append(vectors)

    @property
    def tail(self) -> int:
        return len(self.store.rows) - (self.lists.count if self.lists else 0)

    # Searching

    def search_exact(self, queries: Vectors, k: int, allowed: Mask | None) -> Found:
        rows = self.store.rows
        # Rows that die from here on are those of a removal that has not returned yet.
        chosen = None if allowed is None and not self.store.dead else visible_rows(rows, allowed)
        return brute_force.nearest(queries, rows.vectors, k, chosen)

    def search(self, queries: Vectors, k: int, allowed: Mask | None) -> Found:
        if self.lists is None:
            return self.search_exact(queries, k, allowed)
        list_of_row = self.lists.list_of_row  # what is appended from here on still counts as tail
        visible = None
        if allowed is not None or self.store.dead:
            visible = self._filters.visible(self.store, allowed, list_of_row, self.lists.lists)
        tail = visible_rows(self.store.rows, allowed, len(list_of_row))
        lines = (
            self._scan_all(self.lists, queries, k)
            if visible is None
            else [self._candidates(self.lists, query, k, visible) for query in queries]
        )
        covered = len(list_of_row)
        inside = covered if visible is None else visible.count
        ranked = [
            self._ranked(query, line, covered, inside, tail, k, allowed)
            for query, line in zip(queries, lines, strict=True)
        ]
        return ranked[0] if len(ranked) == 1 else brute_force.stacked(ranked)

    def _ranked(
        self,
        query: Vectors,
        candidates: RowNumbers,
        covered: int,
        inside: int,
        tail: RowNumbers,
        k: int,
        allowed: Mask | None,
    ) -> Found:
        rows = self.store.rows
        candidates = candidates[(candidates >= 0) & (candidates < covered)]
        candidates = candidates[rows.live[candidates]]
        if len(candidates) < min(k, inside):  # the lists looked at hold too few of what there is
            return self.search_exact(query[None], k, allowed)
        if len(tail):
            candidates = np.concatenate((candidates, tail))
        return brute_force.nearest(query[None], rows.vectors, k, candidates)

    def _scan_all(self, lists: InvertedLists, queries: Vectors, k: int) -> RowNumbers:
        effort = self.tuning.effort
        with self.lock.reading():
            return lists.scan(queries, effort.candidates_for(k), effort.probes_for(k))

    def _candidates(self, lists: InvertedLists, query: Vectors, k: int, visible: Visible) -> RowNumbers:
        """By whichever way costs least: every visible row, those in the nearest lists that hold any, or the
        codes of these lists."""
        if visible.count <= CALL_COST:
            return visible.members
        effort = self.tuning.effort
        probes = effort.probes_for(k * visible.covered / visible.count)
        wanted = effort.candidates_for(k)
        occupied = int(np.count_nonzero(visible.occupied))
        of_lists = visible.count * min(1.0, probes / occupied)
        scanned = min(probes, occupied) * visible.covered / lists.lists
        choosing = CALL_COST + LIST_COST * lists.lists
        if visible.count <= choosing + min(of_lists, wanted + CODE_COST * scanned):
            return visible.members
        nearest = lists.lists_of(query, probes, visible.occupied)
        if of_lists <= wanted + CODE_COST * scanned:
            return visible.members_of(nearest)
        with self.lock.reading():
            return lists.scan_lists(query[None], wanted, nearest, visible.bits)[0]
