"""How much is to be kept, measured before it is written."""

import sys
from typing import Any

# Around each value, as JSON writes it.
_MARKS = 4


def characters_of(value: Any, enough: int = sys.maxsize) -> int:
    """About as many as the value takes as JSON, names, numbers and all, without writing it out.

    Once there are more than `enough` the rest is not looked at: whoever asks waits for the whole event loop.
    """
    total, waiting = 0, [value]
    while waiting and total <= enough:
        one = waiting.pop()
        total += _MARKS
        if isinstance(one, str):
            total += len(one)
        elif isinstance(one, dict):
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
        elif one is not None and not isinstance(one, bool):
            total += len(repr(one))
    return total
