"""Which documents a search may return: permissions and attributes of all of them, in memory, as columns.

A view of the collection's database like the vectors: a permission costs a byte or four a document, an attribute is
read when the first filter names it. Documents are known by their number; a mask has one entry for each number.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.collection.attributes import Scalar, kind_of
from index.collection.filters import ORDERINGS, Comparison, Filter, value_matches
from local_llm.permissions import Principals

Mask = NDArray[np.bool_]

# Masks kept for searches that ask the same again: a mask is a byte a document.
CACHED_MASKS = 64
# Attributes kept in memory; others are read again when a filter names them.
MOST_COLUMNS = 128
FIRST_CAPACITY = 1024

# The values of an attribute, by document number.
ReadColumn = Callable[[str], Iterable[tuple[int, Scalar]]]


class Slots:
    """A value for each number from 0, `empty` where none was set. Grows as numbers do."""

    def __init__(self, dtype: type[np.generic], empty: float):
        self._empty = empty
        self._slots = np.full(FIRST_CAPACITY, empty, dtype)
        self._size = 0

    def __setitem__(self, number: int, value: float) -> None:
        self._reach(number + 1)
        self._slots[number] = value

    def load(self, numbers: Sequence[int], values: Sequence[float]) -> None:
        """Many at once."""
        self._reach(max(numbers, default=-1) + 1)
        self._slots[np.asarray(numbers, np.int64)] = values

    @property
    def filled(self) -> NDArray:
        """Up to the largest number that was ever set."""
        return self._slots[: self._size]

    def _reach(self, size: int) -> None:
        if size > len(self._slots):
            grown = np.full(max(size, 2 * len(self._slots)), self._empty, self._slots.dtype)
            grown[: self._size] = self.filled
            self._slots = grown
        self._size = max(self._size, size)


class Codes(Slots):
    """For each document number a code of what it has; 0: nothing there."""

    def __init__(self) -> None:
        super().__init__(np.int32, 0)

    def where(self, verdicts: Mask, size: int) -> Mask:
        """For `size` numbers, the verdict on each one's code. Numbers never set have code 0."""
        mask = np.full(size, verdicts[0])
        known = min(size, len(self.filled))
        mask[:known] = verdicts[self.filled[:known]]
        return mask


class Permissions:
    """Documents fall into classes of equal `allow`: a search judges those that name one of its principals."""

    ABSENT = 0  # nobody's

    def __init__(self, allows: Iterable[tuple[int, str | None]]) -> None:
        self._codes = Codes()
        self._classes: dict[str | None, int] = {}
        self._naming: dict[str, list[int]] = {}  # by principal, the classes that name it
        found = list(allows)
        self._codes.load([number for number, _ in found], [self._class(allow) for _, allow in found])

    @property
    def size(self) -> int:
        return len(self._codes.filled)

    def put(self, number: int, allow_json: str | None) -> None:
        self._codes[number] = self._class(allow_json)

    def drop(self, number: int) -> None:
        self._codes[number] = self.ABSENT

    def visible(self, principals: tuple[str, ...], size: int) -> Mask:
        verdicts = np.zeros(len(self._classes) + 1, np.bool_)
        verdicts[self._classes.get(None, self.ABSENT)] = True
        verdicts[self.ABSENT] = False
        for principal in principals:
            verdicts[self._naming.get(principal, [])] = True
        return self._codes.where(verdicts, size)

    def _class(self, allow_json: str | None) -> int:
        if allow_json not in self._classes:
            self._classes[allow_json] = len(self._classes) + 1
            for principal in () if allow_json is None else set(json.loads(allow_json)):
                self._naming.setdefault(principal, []).append(self._classes[allow_json])
        return self._classes[allow_json]


class Column:
    """One attribute of all documents."""

    MISSING = 0

    def __init__(self, values: Iterable[tuple[int, Scalar]]):
        self._codes = Codes()
        self._values: list[Scalar | None] = [None]
        self._numbers = Slots(np.float64, np.nan)  # those of the values that are numbers, by code
        self._code_of: dict[tuple[str, Scalar], int] = {}
        found = list(values)
        self._codes.load([number for number, _ in found], [self._code(value) for _, value in found])

    def put(self, number: int, value: Scalar | None) -> None:
        self._codes[number] = self.MISSING if value is None else self._code(value)

    def passing(self, comparison: Comparison, size: int) -> Mask:
        return self._codes.where(self._verdicts(comparison), size)

    def _code(self, value: Scalar) -> int:
        key = (kind_of(value), value)
        if key not in self._code_of:
            self._code_of[key] = len(self._values)
            self._numbers[len(self._values)] = float(value) if key[0] == "number" else np.nan
            self._values.append(value)
        return self._code_of[key]

    def _verdicts(self, comparison: Comparison) -> Mask:
        """Whether each distinct value passes. Equality finds the few values named without looking at the others."""
        if comparison.type in ORDERINGS:
            return self._ordered(comparison)
        positive = comparison.type in ("eq", "in")
        verdicts = np.full(len(self._values), not positive)
        codes = [self._code_of.get((kind_of(value), value)) for value in comparison.values]
        verdicts[[code for code in codes if code is not None]] = positive
        return verdicts

    def _ordered(self, comparison: Comparison) -> Mask:
        bound = comparison.values[0]
        if kind_of(bound) != "number":
            return np.array([value_matches(comparison, value) for value in self._values])
        verdicts = np.zeros(len(self._values), np.bool_)
        numbers = self._numbers.filled  # exact: attributes are within 2^53. NaN is in no order.
        verdicts[: len(numbers)] = ORDERINGS[comparison.type](numbers, bound)
        return verdicts


class Catalog:
    """Its methods may be called from several threads. Tell it of a change after the database has it."""

    def __init__(self, allows: Iterable[tuple[int, str | None]], read_column: ReadColumn):
        self._lock = threading.Lock()
        self._read_column = read_column
        self._permissions = Permissions(allows)
        self._columns: OrderedDict[str, Column] = OrderedDict()
        self._cached: OrderedDict[tuple[Principals, str], Mask] = OrderedDict()
        self._size = self._permissions.size

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
        key = (
            principals,
            hashlib.sha256(repr(found).encode("utf-8", "replace")).hexdigest(),
        )  # equal filters can differ: to Python, True is 1
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
        return reduce(join, (self._passing(one) for one in found.filters))  # never all masks at once

    def _column(self, key: str) -> Column:
        if key not in self._columns:
            self._columns[key] = Column(self._read_column(key))
            if len(self._columns) > MOST_COLUMNS:
                self._columns.popitem(last=False)
        self._columns.move_to_end(key)
        return self._columns[key]
