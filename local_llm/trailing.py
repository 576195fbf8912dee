"""Rows that may trail by a second: collected in memory by those who answer, written by one thread.

What waits is written when the process stops. A SIGKILL loses a second of it; nothing here was acknowledged.

A project may be removed while rows of it wait. They go with it: no database takes a row of a project that is gone,
and kept, it would hold up all that wait behind it.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from local_llm.state import Project

WRITE_SECONDS = 1.0

log = logging.getLogger("local_llm.trailing")

R = TypeVar("R")


def still_wanted(session: Session, what: str, rows: Iterable[R], project_of: Callable[[R], str]) -> list[R]:
    """The rows whose project is there; the others are told in the log. To be asked in the transaction that writes
    them, before it does."""
    there = set(session.scalars(select(Project.id)))
    rows = list(rows)
    kept = [row for row in rows if project_of(row) in there]
    if len(kept) < len(rows):
        gone = sorted({project_of(row) for row in rows} - there)
        log.warning("%d rows of %s are dropped: gone is %s", len(rows) - len(kept), what, ", ".join(gone)[:200])
    return kept


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
