"""Whether anybody committed to a SQLite database, for microseconds."""

import sqlite3
import threading


class CommitWatch:
    """A connection that never writes and never reads rows: SQLite counts for it what others commit.

    Source: https://www.sqlite.org/pragma.html#pragma_data_version
    """

    def __init__(self, database: str | None):
        # Opened with the first question: until it is migrated there may be no file yet.
        self._database = database or ":memory:"
        self._cursor: sqlite3.Cursor | None = None
        self._lock = threading.Lock()

    def version(self) -> int:
        with self._lock:
            if self._cursor is None:
                self._cursor = self._open()
            return self._cursor.execute("PRAGMA data_version").fetchone()[0]

    def _open(self) -> sqlite3.Cursor:
        connection = sqlite3.connect(self._database, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA busy_timeout=10000")
        return connection.cursor()

    def close(self) -> None:
        with self._lock:
            if self._cursor is not None:
                self._cursor.connection.close()
                self._cursor = None
