"""What a search sees: rows, the structure over the first of them, and how much of it to look at."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from index.vectors import brute_force
from index.vectors.access_lock import AccessLock
from index.vectors.brute_force import Found, RowNumbers
from index.vectors.device_rows import DeviceRows
from index.vectors.effort import Effort, unmeasured
from index.vectors.filters import FilterCache, Visible, unlisted, visible_rows
from index.vectors.inverted_lists import Bits, InvertedLists, Lists
from index.vectors.rows import Ids, Mask, RowStore, Vectors

# Costs in scorings of one row by itself (0.1 microseconds at 384 dimensions). Source: docs/benchmarks.md.
CODE_COST = 0.06
LIST_COST = 0.4
CALL_COST = 500.0
# When to go on through the lists. Source: docs/benchmarks.md, filters whose documents lie far from the query.
FAR = 1.25  # so many times the usual lists for the usual number of rows: the nearest hold only strays
LATE = 0.1  # of the best may lie in the farther half where the filter is not far
FEW_LISTS = 16  # what is found in so few halves says nothing yet

# Searches wait while so many rows are added.
FOLDED_AT_ONCE = 64

# So few allowed rows may all have died since the filter was made: they are counted again.
FEW_VISIBLE = 4096

NO_ROWS = np.empty(0, np.int64)


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
        self.device_rows: DeviceRows | None = None
        self.trained_rows = trained_rows  # when the centroids were found
        self.tuning = tuning or Tuning(unmeasured(lists.lists if lists else 1))
        self.lock = AccessLock()  # read by searches of the lists, written by what appends to them
        self._filters = FilterCache()
        self._living: tuple[tuple[int, int], Bits] = ((0, 0), np.empty(0, np.uint8))

    def strike_out(self, ids: Ids) -> None:
        rows = self.store.strike_out(ids)
        self._filters.strike_out(rows)
        if self.device_rows is not None:
            self.device_rows.strike_out(rows)

    @property
    def structure(self) -> "InvertedLists | DeviceRows | None":
        return self.device_rows or self.lists

    @property
    def tail(self) -> int:
        """Rows that the structure does not cover."""
        return len(self.store.rows) - (self.structure.count if self.structure else 0)

    def fold(self, limit: int) -> None:
        """Takes the first `limit` rows of the tail into the structure."""
        if self.structure is not None:
            rows = self.store.rows
            first, end = self.structure.count, min(self.structure.count + limit, len(rows))
            while (start := self.structure.count) < end:
                with self.lock.writing():
                    self.structure.append(rows.vectors[start : min(start + FOLDED_AT_ONCE, end)])
            if self.device_rows is not None:  # those that died in the tail
                self.device_rows.strike_out(np.flatnonzero(~rows.live[first:end]) + first)

    # Searching

    def search_exact(self, queries: Vectors, k: int, allowed: Mask | None) -> Found:
        rows = self.store.rows
        # Rows that die from here on are those of a removal that has not returned yet.
        chosen = None if allowed is None and not self.store.dead else visible_rows(rows, allowed)
        return brute_force.nearest(queries, rows.vectors, k, chosen)

    def search(self, queries: Vectors, k: int, allowed: Mask | None) -> Found:
        if self.device_rows is not None:
            return self._search_device(self.device_rows, queries, k, allowed)
        if self.lists is None:
            return self.search_exact(queries, k, allowed)
        list_of_row = self.lists.list_of_row  # what is appended from here on still counts as tail
        covered = inside = len(list_of_row)
        visible = None
        if allowed is not None:
            visible = self._filters.visible(self.store, allowed, list_of_row, self.lists.lists)
            inside = visible.count
        rows = self.store.rows
        tail = visible_rows(rows, allowed, covered) if len(rows) > covered else NO_ROWS
        lines = (
            self._scan_all(self.lists, queries, k, covered)
            if visible is None
            else [self._candidates(self.lists, query, k, visible) for query in queries]
        )
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
        candidates = candidates[candidates.view(np.uint64) < covered]  # -1, too, is not below it
        if self.store.dead:
            candidates = candidates[rows.live[candidates]]
        if len(candidates) < min(k, inside):  # the lists looked at hold too few of what there is
            return self.search_exact(query[None], k, allowed)
        if len(tail):
            candidates = np.concatenate((candidates, tail))
        return brute_force.nearest(query[None], rows.vectors, k, candidates)

    def _search_device(self, device_rows: DeviceRows, queries: Vectors, k: int, allowed: Mask | None) -> Found:
        covered = device_rows.count  # first: the rows it counts are among those seen next
        rows = self.store.rows
        visible, inside = None, covered
        if allowed is not None:
            visible = self._filters.visible(self.store, allowed, unlisted(covered), 1)
            inside = visible.count if visible.count > FEW_VISIBLE else visible.count_living()
        tail = visible_rows(rows, allowed, covered)
        lines = device_rows.candidates(queries, k, visible, covered) if covered else [NO_ROWS] * len(queries)
        ranked = [
            self._ranked(query, line, covered, inside, tail, k, allowed)
            for query, line in zip(queries, lines, strict=True)
        ]
        return brute_force.stacked(ranked)

    def _scan_all(self, lists: InvertedLists, queries: Vectors, k: int, covered: int) -> RowNumbers:
        effort, dead = self.tuning.effort, self.store.dead
        depth = k * covered / max(1, covered - dead)
        bits = self._living_bits(covered, dead) if dead else None
        with self.lock.reading():
            return lists.scan(queries, effort.candidates_for(k), effort.probes_for(depth), bits)

    def _living_bits(self, covered: int, dead: int) -> Bits:
        """Of rows 0..covered-1, when at least `dead` had died."""
        kept_for, bits = self._living
        if kept_for != (covered, dead):
            bits = np.packbits(self.store.rows.live[:covered], bitorder="little")
            self._living = (covered, dead), bits
        return bits

    def _candidates(self, lists: InvertedLists, query: Vectors, k: int, visible: Visible) -> RowNumbers:
        """By whichever way costs least: every visible row, those in the nearest lists that hold any, or the
        codes of these lists."""
        if visible.count <= CALL_COST:
            return visible.members
        effort = self.tuning.effort
        probes = effort.probes_for(k * visible.covered / visible.count)
        wanted = effort.candidates_for(k)
        occupied = int(np.count_nonzero(visible.occupied))
        members = visible.count * min(1.0, probes / occupied)
        codes = wanted + CODE_COST * min(probes, occupied) * visible.covered / lists.lists
        if visible.count <= CALL_COST + LIST_COST * lists.lists + min(members, codes):
            return visible.members
        look = visible.members_of if members <= codes else partial(self._scan, lists, query, wanted, visible)
        return self._through_lists(lists, query, k, visible, probes, look)

    def _scan(
        self, lists: InvertedLists, query: Vectors, wanted: int, visible: Visible, chosen: Lists
    ) -> RowNumbers:
        with self.lock.reading():
            found = lists.scan_lists(query[None], wanted, chosen, visible.bits)[0]
        return found[found >= 0]

    def _through_lists(
        self,
        lists: InvertedLists,
        query: Vectors,
        k: int,
        visible: Visible,
        probes: int,
        look: Callable[[Lists], RowNumbers],
    ) -> RowNumbers:
        """The best visible rows, list by list from the nearest.

        A filter may admit what lies far from the query, where the order of the lists says little and the nearest
        hold only strays: so many lists are looked at as hold as many rows as `probes` lists would on average, and
        twice as many again while any of the best were found in the farther half (or more than a few, where the
        filter is not of that kind).
        """
        order = lists.by_nearness(query, visible.occupied)
        budget = probes * visible.count / len(order)
        enough = int(np.searchsorted(np.cumsum(visible.sizes[order]), budget)) + 1
        late_allowed = 0 if probes < FEW_LISTS or enough > FAR * probes else int(LATE * k)
        done, until, best = 0, min(len(order), max(probes, enough)), NO_ROWS
        near = np.zeros(lists.lists, np.bool_)
        while True:
            fresh = np.concatenate((best, look(order[done:until])))
            fresh = fresh[self.store.rows.live[fresh]]
            best = brute_force.nearest(query[None], self.store.rows.vectors, k, fresh)[1][0]
            near[order[: until // 2]] = True
            late = len(best) - int(np.count_nonzero(near[lists.list_of_row[best]]))
            if until == len(order) or (late <= late_allowed and len(best) == k):
                return best
            done, until = until, min(len(order), 2 * until)
