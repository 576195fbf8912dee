"""What was read from the state database, kept for as long as nobody commits to it."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from local_llm.state import State

MOST_KEPT = 50_000

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class KeptReads(Generic[Key, Value]):
    """Safe to ask from any thread: each entry carries the version it was read at, as threads may be slow to put
    theirs down. Values are shared by all who ask: nobody may change one."""

    def __init__(self, state: State, most: int = MOST_KEPT):
        """`most`: entries. Above it all are forgotten: who asks for so many different ones gains nothing."""
        self._state = state
        self._most = most
        self._kept: dict[Key, tuple[object, Value]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, read: Callable[[], Value]) -> Value:
        """What `read` returns, or returned at this version. What it raises is not kept."""
        version = self._state.version()  # asked first: what is written meanwhile makes the entry an old one
        kept = self._kept.get(key)
        if kept is not None and kept[0] == version:
            return kept[1]
        value = read()
        if len(self._kept) >= self._most:
            self._kept.clear()
        self._kept[key] = version, value
        return value
