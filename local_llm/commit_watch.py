"""Whether anybody committed to the state database: asked by whoever relies on what was read before."""

import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from local_llm import postgresql

Connect = Callable[[Engine], Any]


class CommitWatch(Protocol):
    def version(self) -> object:
        """Equal to what was told before only if nobody committed since. Any thread may ask."""
        ...

    def close(self) -> None: ...


class DataVersionWatch:
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


class SnapshotWatch:
    """PostgreSQL names what a query would see: the oldest and the next transaction, and those on their way. A
    commit anywhere in the server changes that name; nobody has to count. One round trip.

    A server that is gone is told at once: a thread looks for it meanwhile, as who asks may be an event loop.

    Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
    """

    QUERY = "SELECT pg_current_snapshot()::text"
    RETRY_SECONDS = 0.5

    def __init__(self, engine: Engine, connect: Connect = postgresql.own_connection):
        self._engine = engine
        self._connect = connect
        self._connection: Any = None  # the driver's
        self._cursor: Any = None
        # Another server, or this one after a restore, may come to the same name again.
        self._opened = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._looking: threading.Thread | None = None

    def version(self) -> tuple[int, str]:
        """Raises: StateUnavailableError."""
        with self._lock:
            if self._looking is not None:
                raise postgresql.StateUnavailableError(postgresql.AWAY, hint=postgresql.ADVICE)
            try:
                return self._ask()
            except self._failures():
                self._forget()
            try:  # it may only have been restarted since it was asked last
                return self._ask()
            except self._failures() as error:
                self._forget()
                self._looking = threading.Thread(target=self._look, name="state database", daemon=True)
                self._looking.start()
                raise postgresql.unavailable(error) from None

    def _ask(self) -> tuple[int, str]:
        if self._cursor is None:
            self._open()
        return self._opened, self._cursor.execute(self.QUERY, prepare=True).fetchone()[0]

    def _failures(self) -> tuple[type[Exception], ...]:
        """What the pool raises, and the driver by itself."""
        return (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error, postgresql.PasswordFileError)

    def _open(self) -> None:
        self._connection = self._connect(self._engine)
        self._connection.autocommit = True
        self._cursor = self._connection.cursor()
        self._opened += 1

    def _forget(self) -> None:
        connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None:
            connection.close()

    def _look(self) -> None:
        while not self._closed.wait(self.RETRY_SECONDS):
            try:
                connection = self._connect(self._engine)  # without the lock: it may take seconds
            except Exception:  # whatever it is, the next look is another try
                continue
            connection.close()
            with self._lock:
                self._looking = None
            return

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            looking = self._looking
            self._forget()
        if looking is not None:
            looking.join()
