"""The connections to a collection's database: one that writes, and as many as read at once.

Readers see the last commit and wait for nobody (SQLite in WAL mode).
"""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local_llm.errors import IntegrityError, NotFoundError, OutOfSpaceError
from local_llm.fileio import fsync_path

SCHEMA = Path(__file__).parent / "schema.sql"
SCHEMA_VERSION = 2
# A full disk is told by one of these codes, by where it is met: SQLITE_FULL, SQLITE_IOERR_WRITE.
OUT_OF_SPACE = {13, 778}
# Pages of four vectors of 384 and more: documents and vectors are long rows.
PAGE_BYTES = 8192
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000")

JsonRow = dict[str, Any]


class Database:
    """Open until closed; its methods may be called from several threads."""

    def __init__(self, path: Path):
        """Raises: NotFoundError, IntegrityError if another release wrote it."""
        self.path = path
        if not path.exists():
            raise NotFoundError(f"the database of the collection is gone: {path}")
        self.lock = threading.RLock()
        self._of_thread = threading.local()
        self._closed = False
        self._idle: list[sqlite3.Connection] = []  # readers; a list's append and pop are atomic
        self._writer = connect(path)
        self._refuse_other_schema()

    def close(self) -> None:
        with self.lock:
            self._closed = True
            self._writer.close()
            while self._idle:
                self._idle.pop().close()

    def read(self, query: str, **values: Any) -> list[JsonRow]:
        """What is committed, or inside the caller's own transaction what it wrote."""
        with self._connection() as connection:
            return [dict(row) for row in connection.execute(query, values)]

    def iterate(self, query: str, **values: Any) -> Iterator[tuple[Any, ...]]:
        """Rows as tuples, one after the other: for queries that go through everything."""
        with self._connection() as connection:
            cursor = connection.cursor()
            cursor.row_factory = None
            yield from cursor.execute(query, values)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing, on the disk when the block ends. One at a time.

        Raises: OutOfSpaceError; nothing has changed then.
        """
        with self.lock:
            self._writer.execute("BEGIN IMMEDIATE")
            self._of_thread.writing = True
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode in OUT_OF_SPACE:
                    raise OutOfSpaceError(
                        f"there is no space left for {self.path.parent}", hint="free some and try again"
                    ) from None
                raise
            finally:
                self._of_thread.writing = False

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.path.parent.glob(f"{self.path.name}*"))

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if getattr(self._of_thread, "writing", False):
            yield self._writer
            return
        reader = self._idle.pop() if self._idle else connect(self.path)
        try:
            yield reader
        finally:
            if self._closed:
                reader.close()
            else:
                self._idle.append(reader)

    def _refuse_other_schema(self) -> None:
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            self._writer.close()
            raise IntegrityError(
                f"{self.path} has schema version {version}; this release reads version {SCHEMA_VERSION}",
                hint="open it with the release that wrote it, or index the documents anew",
            )


def create_database(path: Path, encoder: str, fingerprint: str, dimension: int | None = None) -> None:
    """Makes the empty database of a new collection, in a folder of its own."""
    path.parent.mkdir(parents=True, mode=0o700)
    connection = connect(path)
    connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA.read_text(encoding='utf-8')} COMMIT;")
    connection.execute("BEGIN IMMEDIATE")
    add_generation(connection, encoder, fingerprint, dimension, active=True)
    connection.execute("COMMIT")
    connection.close()
    fsync_path(path.parent)
    fsync_path(path.parent.parent)


def add_generation(
    connection: sqlite3.Connection, encoder: str, fingerprint: str, dimension: int | None, *, active: bool
) -> int:
    """Returns: its number. Call it inside a transaction."""
    number = connection.execute(
        "INSERT INTO generations (encoder, fingerprint, dimension, active) VALUES (?, ?, ?, ?)",
        (encoder, fingerprint, dimension, int(active)),
    ).lastrowid
    connection.execute(
        f"""CREATE TABLE vectors_{number} (
            document INTEGER PRIMARY KEY REFERENCES documents (number) ON DELETE CASCADE,
            vectors BLOB NOT NULL  -- float32 [passages, dimension], little-endian, rows of length 1
        ) STRICT"""
    )
    assert number is not None
    return number


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # of a new database; an old one keeps its own
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def to_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
