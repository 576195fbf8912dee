"""Rows that may trail by a second: collected in memory by those who answer, written by one thread.

What waits is written when the process stops. A SIGKILL loses a second of it; nothing here was acknowledged.
"""

import sys
import threading
from collections.abc import Callable, Sequence

WRITE_SECONDS = 1.0


class TrailingWriter:
    """Calls each of `writes` once a second. One that fails keeps its rows and is called again."""

    def __init__(self, writes: Sequence[Callable[[], None]], seconds: float = WRITE_SECONDS):
        self._writes = writes
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trailing", daemon=True)
        self._told: str | None = None

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Writes what is left."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._write()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self._write()

    def _write(self) -> None:
        failed = None
        for write in self._writes:
            try:
                write()
            except Exception as error:  # a full disk, mostly; whatever it is, the next second is another try
                failed = failed or str(error)
        if failed is not None and failed != self._told:
            print(f"audit and usage could not be written, and wait: {failed}", file=sys.stderr)  # noqa: T201
        self._told = failed
