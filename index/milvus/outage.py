"""What a search found out about Milvus spares the next ones the wait."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from local_llm.errors import UnavailableError

# As often one search is let through, to see whether Milvus answers again: where it hangs for its timeout of 10
# seconds ten wait for it, of the 40 that the server answers at once. And a second after it is back it is searched.
REFUSED_SECONDS = 1.0


class Outage:
    """From a search that failed to the next that is answered. May be asked by several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: UnavailableError | None = None
        self._refused_until = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A search. Raises: UnavailableError, what the last one met, if that is less than a second ago or another
        was let through since."""
        self._refuse()
        try:
            yield
        except UnavailableError as error:
            self._remember(error)
            raise
        self.is_over()

    def is_over(self) -> None:
        self._error = None

    def _remember(self, error: UnavailableError) -> None:
        with self._lock:
            self._error, self._refused_until = error, time.monotonic() + REFUSED_SECONDS

    def _refuse(self) -> None:
        with self._lock:
            error, now = self._error, time.monotonic()
            if error is None:
                return
            if now >= self._refused_until:
                self._refused_until = now + REFUSED_SECONDS
                return
        again = UnavailableError(error.message, hint=error.hint, retry_after_seconds=error.retry_after_seconds)
        raise again from error
