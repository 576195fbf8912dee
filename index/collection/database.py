"""The connections to a collection's database: one that writes, and as many as read at once.

Readers see the last commit and wait for nobody (SQLite in WAL mode).
"""

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from index.collection.storage_errors import told_clearly
from local_llm.errors import IntegrityError, NotFoundError
from local_llm.fileio import fsync_path

SCHEMA = Path(__file__).parent / "schema.sql"
SCHEMA_VERSION = 2
# Pages of four vectors of 384 and more: documents and vectors are long rows.
PAGE_BYTES = 8192
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000")

JsonRow = dict[str, Any]


class Database:
    """Open until closed; its methods may be called from several threads."""

    def __init__(self, path: Path):
        """Raises: NotFoundError, IntegrityError if it is damaged or another release wrote it."""
        self.path = path
        self._refuse_missing()
        self.lock = threading.RLock()
        self._of_thread = threading.local()
        self._closed = False
        self._idle: list[sqlite3.Connection] = []  # readers; a list's append and pop are atomic
        with told_clearly(path):
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
        with told_clearly(self.path), self._connection() as connection:
            return [dict(row) for row in connection.execute(query, values)]

    def iterate(self, query: str, **values: Any) -> Iterator[tuple[Any, ...]]:
        """Rows as tuples, one after the other: for queries that go through everything."""
        with told_clearly(self.path), self._connection() as connection:
            cursor = connection.cursor()
            cursor.row_factory = None
            yield from cursor.execute(query, values)

    @contextmanager
    def one_commit(self) -> Iterator[None]:
        """All that this thread reads in the block is of the same commit."""
        with told_clearly(self.path), self._connection() as connection:
            if connection.in_transaction:  # the caller's own, or a block around this one
                yield
                return
            connection.execute("BEGIN")
            self._of_thread.connection = connection
            try:
                yield
            finally:
                self._of_thread.connection = None
                connection.execute("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing, on the disk when the block ends. One at a time.

        Raises: OutOfSpaceError, IntegrityError; nothing has changed then.
        """
        with self.lock, told_clearly(self.path):
            self._refuse_closed()
            self._writer.execute("BEGIN IMMEDIATE")
            self._of_thread.connection = self._writer
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            finally:
                self._of_thread.connection = None

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.path.parent.glob(f"{self.path.name}*"))

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        own = getattr(self._of_thread, "connection", None)
        if own is not None:
            yield own
            return
        self._refuse_closed()
        reader = self._reader()
        try:
            yield reader
        finally:
            if self._closed:
                reader.close()
            else:
                self._idle.append(reader)

    def _reader(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return connect(self.path)

    def _refuse_closed(self) -> None:
        if self._closed:
            self._refuse_missing()
            raise NotFoundError(f"the collection {self.path.parent.name} was closed meanwhile", hint="ask again")

    def _refuse_missing(self) -> None:
        if not self.path.exists():
            raise NotFoundError(
                f"the collection {self.path.parent.name} is gone: there is no {self.path}",
                hint="where hosts share the state (state.url), collections lie on one of them: ask there",
            )

    def _refuse_other_schema(self) -> None:
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            self._writer.close()
            raise IntegrityError(
                f"{self.path} has schema version {version}; this release reads version {SCHEMA_VERSION}",
                hint="open it with the release that wrote it, or index the documents anew",
            )


def create_database(path: Path, encoder: str, fingerprint: str, dimension: int | None = None) -> None:
    """Makes the empty database of a new collection, in a folder of its own.

    Raises: OutOfSpaceError and whatever else the disk has to say; nothing is left behind then.
    """
    try:
        with told_clearly(path):
            path.parent.mkdir(parents=True, mode=0o700)
            _fill_new(path, encoder, fingerprint, dimension)
    except BaseException:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise


def _fill_new(path: Path, encoder: str, fingerprint: str, dimension: int | None) -> None:
    connection = connect(path, new=True)
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA.read_text(encoding='utf-8')} COMMIT;")
        connection.execute("BEGIN IMMEDIATE")
        add_generation(connection, encoder, fingerprint, dimension, active=True)
        connection.execute("COMMIT")
    finally:
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


def connect(path: Path, *, new: bool = False) -> sqlite3.Connection:
    """To a database that is there: a connection made while its folder is deleted must not begin another."""
    address = f"file:{quote(os.fsencode(path))}?mode={'rwc' if new else 'rw'}"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # of a new database; an old one keeps its own
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def to_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
