"""Who may use the model now: queries before documents, and those that wait together are encoded together."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]

# More would make the first of the waiting queries wait for the last.
MOST_TOGETHER = 64


@dataclass
class _Request:
    texts: Sequence[str]
    vectors: Vectors | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.vectors is not None or self.error is not None


class Turns:
    """One call to the model at a time.

    The first caller with queries takes along what the others have queued up. Documents come batch by batch and let
    waiting queries go first, so that a search waits for one batch at most.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy = False
        self._waiting: list[_Request] = []

    def documents(self, encode: Encode, texts: Sequence[str]) -> Vectors:
        with self._changed:
            self._changed.wait_for(lambda: not self._busy and not self._waiting)
            self._busy = True
        try:
            return encode(texts)
        finally:
            self._free()

    def queries(self, encode: Encode, texts: Sequence[str]) -> Vectors:
        """Raises: what `encode` raised for the texts it was given together with these."""
        request = _Request(texts)
        with self._changed:
            self._waiting.append(request)
        while (taken := self._take(request)) is not None:
            try:
                _answer(encode, taken)
            finally:
                self._free()
        if request.error is not None:
            raise request.error
        assert request.vectors is not None
        return request.vectors

    def _take(self, request: _Request) -> list[_Request] | None:
        """What to encode now: the oldest that wait; None once the caller's own request is done."""
        with self._changed:
            self._changed.wait_for(lambda: request.done or not self._busy)
            if request.done:
                return None
            self._busy = True
            taken: list[_Request] = []
            texts = 0
            while self._waiting and (not taken or texts + len(self._waiting[0].texts) <= MOST_TOGETHER):
                taken.append(self._waiting.pop(0))
                texts += len(taken[-1].texts)
            return taken

    def _free(self) -> None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()


def _answer(encode: Encode, requests: list[_Request]) -> None:
    """Encodes the texts of all requests in one call and gives each its rows, or its error."""
    try:
        vectors = encode([text for request in requests for text in request.texts])
    except BaseException as error:
        for request in requests:
            request.error = error
        return
    at = 0
    for request in requests:
        request.vectors = vectors[at : at + len(request.texts)]
        at += len(request.texts)
