"""Which rows a search may return, from which documents it may see."""

import threading
import weakref
from collections import OrderedDict
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from index.vectors.brute_force import RowNumbers
from index.vectors.inverted_lists import Lists
from index.vectors.rows import Groups, Mask, Rows, RowStore

# A filter over 1 M rows takes at most 7 MB.
CACHED_FILTERS = 32


def permitted(groups: Groups, allowed: Mask) -> Mask:
    """allowed: bool [documents]; a document without an entry is not allowed. Returns: bool [rows]."""
    if not len(groups):
        return np.zeros(0, np.bool_)
    missing = int(groups.max()) + 1 - len(allowed)
    if missing > 0:
        allowed = np.concatenate((allowed, np.zeros(missing, np.bool_)))
    return allowed[groups]


def visible_rows(rows: Rows, allowed: Mask | None, start: int = 0) -> RowNumbers:
    """The live rows that are allowed, from `start` on, ascending."""
    if allowed is None:
        return rows.living(start)
    return np.flatnonzero(rows.live[start:] & permitted(rows.groups[start:], allowed)) + start


def unlisted(covered: int) -> NDArray[np.uint16]:
    """The lists of rows that stand in none: all in the one list 0. Takes no memory."""
    return np.broadcast_to(np.zeros(1, np.uint16), (covered,))


class Runs:
    """Rows 0..n-1 as runs of one document each: about as many as documents, where rows are many times more."""

    def __init__(self, groups: Groups):
        self.count = len(groups)
        self._starts = np.flatnonzero(np.diff(groups, prepend=-1))
        self._lengths = np.diff(self._starts, append=len(groups))
        self._groups = groups[self._starts]

    def rows_of(self, allowed: Mask) -> RowNumbers:
        """Ascending."""
        chosen = permitted(self._groups, allowed)
        return ranges(self._starts[chosen], self._lengths[chosen])


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start + 1, ..., start + length - 1 of each, in one array."""
    ends = np.cumsum(lengths)
    if not len(ends):
        return np.empty(0, np.int64)
    return np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)


class Visible:
    """What a search may return of rows 0..covered-1 as they stood when this was made.

    A row that died since may still be in it: whoever scores rows looks at `live` again.
    """

    def __init__(self, members: RowNumbers, live: Mask, list_of_row: NDArray[np.uint16], lists: int):
        self.covered = len(list_of_row)
        self._live = live
        self._lock = threading.Lock()
        self._bits: NDArray[np.uint8] | None = None
        self._members = members.astype(np.int32)
        self._list_of_row = list_of_row
        self._lists = lists

    @property
    def count(self) -> int:
        return len(self._members)

    def count_living(self) -> int:
        """Of them, those that live now."""
        return int(np.count_nonzero(self._live[self._members]))

    @property
    def members(self) -> RowNumbers:
        return self._members.astype(np.int64)

    @property
    def mask(self) -> Mask:
        """bool [covered], of those that live now."""
        mask = np.zeros(self.covered, np.bool_)
        mask[self._members] = self._live[self._members]
        return mask

    @property
    def bits(self) -> NDArray[np.uint8]:
        """One for each row, the lowest of a byte first."""
        with self._lock:
            if self._bits is None:
                self._bits = np.packbits(self.mask, bitorder="little")
            return self._bits

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """How many of them each list holds."""
        return np.bincount(self._list_of_row[self._members], minlength=self._lists)

    @cached_property
    def occupied(self) -> Mask:
        return self.sizes > 0

    @cached_property
    def _by_list(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        order = np.argsort(self._list_of_row[self._members], kind="stable")
        return self._members[order], np.concatenate(([0], np.cumsum(self.sizes)))

    def members_of(self, lists: Lists) -> RowNumbers:
        """Those in these lists."""
        members, starts = self._by_list
        return members[ranges(starts[lists], self.sizes[lists])].astype(np.int64)

    def strike_out(self, rows: RowNumbers) -> None:
        """They are no longer scanned for: enough of them would crowd out those that live."""
        with self._lock:
            if self._bits is not None:  # if not, they are made from what lives then
                rows = rows[rows < self.covered]
                np.bitwise_and.at(self._bits, rows >> 3, ~(1 << (rows & 7)).astype(np.uint8))


class FilterCache:
    """Keeps what was made of a filter while the caller keeps its array.

    An array is known by its identity, so it counts only if nobody can write to it: `allowed.setflags(write=False)`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, tuple[weakref.ref, Visible]] = OrderedDict()
        self._runs = Runs(np.empty(0, np.int32))

    def visible(self, store: RowStore, allowed: Mask, list_of_row: NDArray[np.uint16], lists: int) -> Visible:
        kept = self._find(allowed)
        if kept is not None and kept.covered == len(list_of_row):
            return kept
        dead = store.dead
        members = self._members(store, allowed, len(list_of_row))
        made = Visible(members, store.rows.live, list_of_row, lists)
        if not allowed.flags.writeable and allowed.base is None:
            self._keep(allowed, made, store, dead)
        return made

    def _members(self, store: RowStore, allowed: Mask, covered: int) -> RowNumbers:
        rows = store.rows
        runs = self._runs
        if runs.count != covered:
            runs = self._runs = Runs(rows.groups[:covered])
        members = runs.rows_of(allowed)
        return members[rows.live[members]]

    def strike_out(self, rows: RowNumbers) -> None:
        with self._lock:
            for _, visible in self._kept.values():
                visible.strike_out(rows)

    def _find(self, allowed: Mask) -> Visible | None:
        with self._lock:
            reference, visible = self._kept.get(id(allowed), (None, None))
            if reference is None or reference() is not allowed:
                return None
            self._kept.move_to_end(id(allowed))
            return visible

    def _keep(self, allowed: Mask, visible: Visible, store: RowStore, dead: int) -> None:
        with self._lock:
            if store.dead != dead:
                return  # rows died meanwhile: they may be in it, and would stay
            self._kept[id(allowed)] = (weakref.ref(allowed), visible)
            for key in [key for key, (reference, _) in self._kept.items() if reference() is None]:
                del self._kept[key]
            while len(self._kept) > CACHED_FILTERS:
                self._kept.popitem(last=False)
