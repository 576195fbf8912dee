"""Uploaded files: bytes under LOCAL_LLM_HOME/files named by their id, and one row each.

A file is whole on the disk before its row exists, and its row is gone before its bytes are: whoever finds a row
finds the file, whatever was killed when.
"""

import hashlib
import os
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from sqlalchemy import delete, select

from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.fileio import CHUNK_BYTES, fsync_path
from local_llm.identifiers import new_id, now
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import File, State

FINE_TUNE = "fine-tune"
ABANDONED_AFTER_SECONDS = 24 * 3600


class FileWriter:
    """One upload as it arrives: write() chunks, then commit(), or discard() on any error."""

    def __init__(self, folder: Path, state: State, *, filename: str, purpose: str, project_id: str, max_bytes: int):
        self._folder = folder
        self._state = state
        self._filename = filename
        self._purpose = purpose
        self._project_id = project_id
        self._max_bytes = max_bytes
        self._bytes = 0
        self._digest = hashlib.sha256()
        self._temporary = folder / f".upload-{uuid.uuid4().hex}"
        self._handle = self._temporary.open("xb")

    def write(self, chunk: bytes) -> None:
        """Raises: InvalidInputError, with everything discarded, once the file is larger than allowed."""
        self._bytes += len(chunk)
        if self._bytes > self._max_bytes:
            self.discard()
            raise InvalidInputError(
                f"{self._filename} is larger than {self._max_bytes:,} bytes",
                hint="split it, or raise server.max_upload_bytes",
                param="file",
            )
        self._digest.update(chunk)
        self._handle.write(chunk)

    def commit(self) -> File:
        """Makes the file last: fsync, rename, fsync of the folder, and only then the row."""
        identifier = new_id("file-")
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()
        self._temporary.rename(self._folder / identifier)
        fsync_path(self._folder)
        row = File(
            id=identifier,
            project_id=self._project_id,
            filename=self._filename,
            purpose=self._purpose,
            bytes=self._bytes,
            sha256=self._digest.hexdigest(),
            created_at=now(),
        )
        with self._state.session() as session:
            session.add(row)
        return row

    def discard(self) -> None:
        """Forgets what was written; harmless after commit()."""
        self._handle.close()
        self._temporary.unlink(missing_ok=True)


class FileStore:
    def __init__(self, settings: Settings, state: State):
        self._folder = settings.place.files
        self._default_max_bytes = settings.server.max_upload_bytes
        self._state = state

    def begin(self, *, filename: str, purpose: str, project_id: str, max_bytes: int | None = None) -> FileWriter:
        """A writer for a file that arrives in chunks; `max_bytes` defaults to server.max_upload_bytes."""
        limit = self._default_max_bytes if max_bytes is None else max_bytes
        return FileWriter(
            self._folder,
            self._state,
            filename=filename,
            purpose=purpose,
            project_id=project_id,
            max_bytes=limit,
        )

    def add(
        self,
        source: Path | Iterable[bytes],
        *,
        filename: str,
        purpose: str,
        project_id: str,
        max_bytes: int | None = None,
    ) -> File:
        """Stores a file that is here, or chunks of one.

        Raises: InvalidInputError if it is too large: nothing is left of it then.
        """
        writer = self.begin(filename=filename, purpose=purpose, project_id=project_id, max_bytes=max_bytes)
        try:
            for chunk in _chunks(source) if isinstance(source, Path) else source:
                writer.write(chunk)
            return writer.commit()
        finally:
            writer.discard()

    def get(self, identifier: str, caller: Caller) -> File:
        """Raises: NotFoundError, also for a file of another project."""
        with self._state.reading() as session:
            row = session.get(File, identifier)
        if row is None or row.project_id != caller.project_id:
            raise NotFoundError(f"No such File object: {identifier}", param="id")
        return row

    def list(
        self,
        caller: Caller,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 10_000,
        order: Literal["asc", "desc"] = "desc",
    ) -> list[File]:
        """Files of the caller's project by time of upload; `after` is the id of the last one already seen."""
        with self._state.reading() as session:
            rows = list(session.scalars(select(File).where(File.project_id == caller.project_id)))
        rows = [row for row in rows if purpose is None or row.purpose == purpose]
        rows.sort(key=lambda row: (row.created_at, row.id), reverse=order == "desc")
        if after is not None:
            position = next((place for place, row in enumerate(rows) if row.id == after), None)
            if position is None:
                raise NotFoundError(f"No such File object: {after}", param="after")
            rows = rows[position + 1 :]
        return rows[:limit]

    def delete(self, identifier: str, caller: Caller) -> None:
        """Raises: NotFoundError."""
        row = self.get(identifier, caller)
        with self._state.session() as session:
            session.execute(delete(File).where(File.id == row.id))
        self.path(row.id).unlink(missing_ok=True)

    def path(self, identifier: str) -> Path:
        """Where the bytes of a listed file lie."""
        return self._folder / identifier

    def remove_abandoned(self) -> None:
        """Deletes what killed processes left of uploads more than a day ago. Called when a server starts."""
        with self._state.session() as session:
            known = set(session.scalars(select(File.id)))
        for path in self._folder.iterdir():
            old = path.stat().st_mtime < time.time() - ABANDONED_AFTER_SECONDS
            if old and path.name not in known:
                path.unlink(missing_ok=True)


def _chunks(path: Path) -> Iterable[bytes]:
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            yield chunk
