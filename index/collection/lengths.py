"""How long each passage is, and whose: what BM25 asks of every passage that holds a word.

Read from the database when a word is asked for first, and from then on what came since. Passages of one document
have ids in a row, so that a table of documents tells of passages.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from index.collection.catalog import Mask
from index.collection.database import Database
from index.collection.documents import Ids

Integers = NDArray[np.int64]
NONE = np.empty(0, np.int64)

# Entries of documents that are gone: so many, and as many as those that live, before all is read anew.
MOST_GONE = 1000


class Lengths:
    """Entries are documents, in the order of their passages' ids. To be used by one thread at a time."""

    def __init__(self, database: Database):
        self._database = database
        self._clear()

    def _clear(self) -> None:
        self._next = 1  # the first passage that was not read yet
        self._entry_of: dict[int, int] = {}  # by a document's number, its entry that lives
        self._gone = 0
        self._first: Integers = NONE
        self._count: Integers = NONE
        self._number: Integers = NONE
        self._characters: Integers = NONE  # of all passages of an entry
        self._offset: Integers = NONE
        self._lengths: Integers = NONE  # of each passage, an entry's from its offset
        self._live: Mask = np.empty(0, np.bool_)

    def refresh(self) -> None:
        """Reads what came since the last time."""
        if self._gone > max(MOST_GONE, len(self._entry_of)):
            self._clear()
        documents = self._read(
            "SELECT first_passage, passages, number FROM documents WHERE first_passage >= :next ORDER BY 1", 3
        )
        if not len(documents):
            return
        first, count, number = documents.T
        passages = self._read("SELECT id, end_char - start_char FROM passages WHERE id >= :next ORDER BY 1", 2)
        # Between the two readings documents came and went: only those that both have are known from now on.
        start = np.searchsorted(passages[:, 0], first)
        whole = np.searchsorted(passages[:, 0], first + count) - start == count
        self._next = int(first[-1] + count[-1])
        self._append(first[whole], count[whole], number[whole], start[whole], passages[:, 1])

    def forget(self, numbers: Iterable[int]) -> None:
        """These documents were removed."""
        for number in numbers:
            self._kill(number)

    def in_scope(self, allowed: Mask | None) -> tuple[int, float]:
        """Of the documents allowed (None: all): how many passages, and their mean length in characters."""
        chosen = self._live if allowed is None else self._live & permitted(self._number, allowed)
        passages = int(self._count[chosen].sum())
        return passages, float(self._characters[chosen].sum()) / max(1, passages)

    def of(self, passages: Ids, allowed: Mask | None) -> tuple[Mask, Integers]:
        """Which of the passages are there and allowed, bool [passages], and the lengths of those in characters."""
        if not len(self._first):
            return np.zeros(len(passages), np.bool_), NONE
        chosen, entry, within = self._found(passages)
        if allowed is not None:
            chosen &= permitted(self._number[entry], allowed)
        return chosen, self._lengths[self._offset[entry[chosen]] + within[chosen]]

    def gone(self, passages: Ids) -> Ids:
        """Those that are there no longer, each once."""
        return np.unique(passages[~self._found(passages)[0]] if len(self._first) else passages)

    def _found(self, passages: Ids) -> tuple[Mask, Integers, Integers]:
        """Which of the passages are there, in which entries, and at which place within them."""
        entry = np.searchsorted(self._first, passages, "right") - 1
        within = passages - self._first[entry]
        # An id below the first entry has the last as its entry, -1, and lies below that.
        return (within >= 0) & (within < self._count[entry]) & self._live[entry], entry, within

    def _append(
        self, first: Integers, count: Integers, number: Integers, start: Integers, lengths: Integers
    ) -> None:
        sums = np.concatenate([[0], np.cumsum(lengths)])
        entries = len(self._first)
        self._first = np.concatenate([self._first, first])
        self._count = np.concatenate([self._count, count])
        self._number = np.concatenate([self._number, number])
        self._offset = np.concatenate([self._offset, start + len(self._lengths)])
        self._characters = np.concatenate([self._characters, sums[start + count] - sums[start]])
        self._lengths = np.concatenate([self._lengths, lengths])
        self._live = np.concatenate([self._live, np.ones(len(first), np.bool_)])
        for entry, one in enumerate(number.tolist(), entries):
            self._kill(one)  # the version before
            self._entry_of[one] = entry

    def _kill(self, number: int) -> None:
        entry = self._entry_of.pop(number, None)
        if entry is not None:
            self._live[entry] = False
            self._gone += 1

    def _read(self, query: str, columns: int) -> Integers:
        """int64 [rows, columns]"""
        return np.array(list(self._database.iterate(query, next=self._next)), np.int64).reshape(-1, columns)


def permitted(numbers: Integers, allowed: Mask) -> Mask:
    """bool [numbers]. A document that came after the mask was made is not allowed."""
    known = numbers < len(allowed)
    return known & allowed[np.where(known, numbers, 0)]
