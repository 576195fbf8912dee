"""Which documents a search may return: permissions and attributes of all of them, in memory, as columns.

A view of the collection's database like the vectors: a permission costs a byte or four a document, an attribute is
read when the first filter names it. Documents are known by their number; a mask has one entry for each number.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.collection.filters import Comparison, Filter, Scalar, kind_of, value_matches
from local_llm.permissions import Principals

Mask = NDArray[np.bool_]

# Masks kept for searches that ask the same again: a mask is a byte a document.
CACHED_MASKS = 64
FIRST_CAPACITY = 1024

# The values of an attribute, by document number.
ReadColumn = Callable[[str], Iterable[tuple[int, Scalar]]]


class Codes:
    """For each document number a code of what it has; 0: nothing there."""

    def __init__(self) -> None:
        self._codes = np.zeros(FIRST_CAPACITY, np.int32)
        self._size = 0

    def __setitem__(self, number: int, code: int) -> None:
        if number >= len(self._codes):
            grown = np.zeros(max(number + 1, 2 * len(self._codes)), np.int32)
            grown[: self._size] = self._codes[: self._size]
            self._codes = grown
        self._codes[number] = code
        self._size = max(self._size, number + 1)

    def where(self, verdicts: Mask, size: int) -> Mask:
        """For `size` numbers, the verdict on each one's code. Numbers never set have code 0."""
        mask = np.full(size, verdicts[0])
        known = min(size, self._size)
        mask[:known] = verdicts[self._codes[:known]]
        return mask


class Permissions:
    """Documents fall into few classes of equal `allow`: a search judges the classes."""

    ABSENT = 0

    def __init__(self) -> None:
        self._codes = Codes()
        self._classes: dict[str | None, int] = {}
        self._allows: list[frozenset[str] | None] = [frozenset()]  # of ABSENT: nobody's

    def put(self, number: int, allow_json: str | None) -> None:
        if allow_json not in self._classes:
            self._classes[allow_json] = len(self._allows)
            self._allows.append(None if allow_json is None else frozenset(json.loads(allow_json)))
        self._codes[number] = self._classes[allow_json]

    def drop(self, number: int) -> None:
        self._codes[number] = self.ABSENT

    def visible(self, principals: tuple[str, ...], size: int) -> Mask:
        held = set(principals)
        verdicts = np.array([allow is None or not held.isdisjoint(allow) for allow in self._allows])
        return self._codes.where(verdicts, size)


class Column:
    """One attribute of all documents."""

    MISSING = 0

    def __init__(self, values: Iterable[tuple[int, Scalar]]):
        self._codes = Codes()
        self._values: list[Scalar | None] = [None]
        self._code_of: dict[tuple[str, Scalar], int] = {}
        for number, value in values:
            self.put(number, value)

    def put(self, number: int, value: Scalar | None) -> None:
        self._codes[number] = self.MISSING if value is None else self._code(value)

    def passing(self, comparison: Comparison, size: int) -> Mask:
        return self._codes.where(self._verdicts(comparison), size)

    def _code(self, value: Scalar) -> int:
        key = (kind_of(value), value)
        if key not in self._code_of:
            self._code_of[key] = len(self._values)
            self._values.append(value)
        return self._code_of[key]

    def _verdicts(self, comparison: Comparison) -> Mask:
        """Whether each distinct value passes. Equality finds the few values named without looking at the others."""
        if comparison.type in ("eq", "in", "ne", "nin"):
            positive = comparison.type in ("eq", "in")
            verdicts = np.full(len(self._values), not positive)
            codes = [self._code_of.get((kind_of(value), value)) for value in comparison.values]
            verdicts[[code for code in codes if code is not None]] = positive
            return verdicts
        return np.array([value_matches(comparison, value) for value in self._values])


class Catalog:
    """Its methods may be called from several threads. Tell it of a change after the database has it."""

    def __init__(self, allows: Iterable[tuple[int, str | None]], read_column: ReadColumn):
        self._lock = threading.Lock()
        self._read_column = read_column
        self._permissions = Permissions()
        self._columns: dict[str, Column] = {}
        self._cached: OrderedDict[tuple[Principals, str], Mask] = OrderedDict()
        self._size = 0
        for number, allow in allows:
            self._permissions.put(number, allow)
            self._size = max(self._size, number + 1)

    def put(self, number: int, allow_json: str | None, attributes: Mapping[str, Any]) -> None:
        with self._lock:
            self._permissions.put(number, allow_json)
            for key, column in self._columns.items():
                column.put(number, attributes.get(key))
            self._size = max(self._size, number + 1)
            self._cached.clear()

    def drop(self, number: int) -> None:
        with self._lock:
            self._permissions.drop(number)
            for column in self._columns.values():
                column.put(number, None)
            self._cached.clear()

    def allowed(self, principals: Principals, found: Filter | None) -> Mask | None:
        """The documents that these principals may see and that pass the filter; None: all there are.

        The mask is read-only and the same object for as long as nothing changes.
        """
        if principals is None and found is None:
            return None
        key = (principals, repr(found))  # equal filters can differ: to Python, True is 1
        with self._lock:
            if key not in self._cached:
                self._cached[key] = self._mask(principals, found)
                if len(self._cached) > CACHED_MASKS:
                    self._cached.popitem(last=False)
            self._cached.move_to_end(key)
            return self._cached[key]

    def _mask(self, principals: Principals, found: Filter | None) -> Mask:
        masks = []
        if principals is not None:
            masks.append(self._permissions.visible(principals, self._size))
        if found is not None:
            masks.append(self._passing(found))
        mask = reduce(np.logical_and, masks)
        mask.flags.writeable = False
        return mask

    def _passing(self, found: Filter) -> Mask:
        if isinstance(found, Comparison):
            return self._column(found.key).passing(found, self._size)
        join = np.logical_and if found.type == "and" else np.logical_or
        return reduce(join, [self._passing(one) for one in found.filters])

    def _column(self, key: str) -> Column:
        if key not in self._columns:
            self._columns[key] = Column(self._read_column(key))
        return self._columns[key]
