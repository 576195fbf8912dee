"""Uploaded files: bytes under LOCAL_LLM_HOME/files named by their id, and one row each.

A file is whole on the disk before its row exists, and its row is gone before its bytes are: whoever finds a row
finds the file, whatever was killed when. Equal files of a project share their bytes through hard links: each row
has a path of its own name, and the file system counts how many names the bytes still have.
"""

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Literal

from sqlalchemy import Select, delete, func, select, tuple_
from sqlalchemy.orm import Session

from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.fileio import CHUNK_BYTES, fsync_path
from local_llm.identifiers import new_ordered_id, now
from local_llm.permissions import Caller, shared
from local_llm.provenance import audience_of_file
from local_llm.settings import Settings
from local_llm.state import File, Project, State

FINE_TUNE = "fine-tune"
FINE_TUNE_RESULTS = "fine-tune-results"  # written by us at the end of a job; never uploaded, not in the quota
# Answers of batches: what was answered is never refused, but it counts, and a batch ends when the quota is full.
BATCH, BATCH_OUTPUT = "batch", "batch_output"

ABANDONED_AFTER_SECONDS = 24 * 3600
IDS_AT_ONCE = 500
ROWS_AT_ONCE = 200
FILENAME_CHARACTERS = 255  # what file systems hold, and so what a download can be saved as

# Looks at a whole upload before it is published, and raises InvalidInputError to refuse it.
Check = Callable[[Path], object]


class QuotaExceededError(InvalidInputError):
    code = "quota_exceeded"


class FileWriter:
    """One upload as it arrives: write() chunks, then commit(), or discard() on any error."""

    def __init__(self, folder: Path, state: State, row: File, *, max_bytes: int, quota_bytes: int):
        self._folder = folder
        self._state = state
        self._row = row
        self._max_bytes = max_bytes
        self._quota_bytes = quota_bytes
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
                f"{self._row.filename} is larger than {self._max_bytes:,} bytes",
                hint="split it, or raise server.max_upload_bytes",
                param="file",
            )
        self._digest.update(chunk)
        self._handle.write(chunk)

    def commit(self, check: Check | None = None) -> File:
        """Makes the file last: fsync, its name, fsync of the folder, and only then the row.

        A training file that holds restricted passages is for those who may see them (provenance).

        Raises: what `check` raises; QuotaExceededError. Nothing is published then.
        """
        self._handle.flush()
        if check is not None:
            check(self._temporary)
        if self._row.purpose == FINE_TUNE:
            known = audience_of_file(self._state, self._row.project_id, self._temporary)
            self._row.allow = shared(self._row.allow, known)
        os.fsync(self._handle.fileno())
        self._handle.close()
        row = self._row
        row.bytes, row.sha256, row.created_at = self._bytes, self._digest.hexdigest(), now()
        path = self._folder / row.id
        self._publish(path)
        try:
            with self._state.session() as session:
                _refuse_over_quota(session, row, self._quota_bytes)
                session.add(row)
        except QuotaExceededError:
            path.unlink()
            raise
        return row

    def discard(self) -> None:
        """Forgets what was written; harmless after commit()."""
        self._handle.close()
        self._temporary.unlink(missing_ok=True)

    def _publish(self, path: Path) -> None:
        """Names the bytes: those of an equal file where there are any, else the ones that were written."""
        equal = self._equal_file()
        if equal is not None and _link(self._folder / equal, path, self._bytes):
            self._temporary.unlink()
        else:
            self._temporary.rename(path)
        fsync_path(self._folder)

    def _equal_file(self) -> str | None:
        """The newest equal file of the project: an older one's bytes may have all the links they can have."""
        with self._state.reading() as session:
            query = (
                select(File.id)
                .where(File.project_id == self._row.project_id, File.sha256 == self._row.sha256)
                .order_by(File.created_at.desc())
            )
            return session.scalars(query).first()


class FileStore:
    def __init__(self, settings: Settings, state: State):
        self._folder = settings.place.files
        self._default_max_bytes = settings.server.max_upload_bytes
        self._quota_bytes = settings.server.project_quota_bytes
        self._state = state

    def begin(
        self,
        *,
        filename: str,
        purpose: str,
        project_id: str,
        key_id: str | None = None,
        max_bytes: int | None = None,
        allow: Sequence[str] | None = None,
    ) -> FileWriter:
        """A writer for a file that arrives in chunks; `max_bytes` defaults to server.max_upload_bytes."""
        row = File(
            id=new_ordered_id("file-"),
            project_id=project_id,
            filename=clean_filename(filename),
            purpose=purpose,
            key_id=key_id,
            allow=None if allow is None else sorted(allow),
        )
        limit = self._default_max_bytes if max_bytes is None else max_bytes
        return FileWriter(self._folder, self._state, row, max_bytes=limit, quota_bytes=self._quota_bytes)

    def add(
        self,
        source: Path | Iterable[bytes],
        *,
        filename: str,
        purpose: str,
        project_id: str,
        key_id: str | None = None,
        max_bytes: int | None = None,
        check: Check | None = None,
        allow: Sequence[str] | None = None,
    ) -> File:
        """Stores a file that is here, or chunks of one. `allow`: as in its row.

        `check` is called with the path of the whole file, under a temporary name, before anybody can find it.

        Raises: InvalidInputError if it is too large or over the project's quota, and what `check` raises: nothing
        is left of it then.
        """
        writer = self.begin(
            filename=filename,
            purpose=purpose,
            project_id=project_id,
            key_id=key_id,
            max_bytes=max_bytes,
            allow=allow,
        )
        try:
            for chunk in _chunks(source) if isinstance(source, Path) else source:
                writer.write(chunk)
            return writer.commit(check)
        finally:
            writer.discard()

    def get(self, identifier: str, caller: Caller) -> File:
        """Raises: NotFoundError, also for a file of another project or one that the caller may not see."""
        with self._state.reading() as session:
            return _get(session, identifier, caller, "id")

    def get_all(self, identifiers: Sequence[str], caller: Caller, param: str) -> dict[str, File]:
        """Several by their ids. Raises: NotFoundError naming the first that is not there."""
        found: dict[str, File] = {}
        with self._state.reading() as session:
            for start in range(0, len(identifiers), IDS_AT_ONCE):
                query = select(File).where(File.id.in_(identifiers[start : start + IDS_AT_ONCE]))
                found |= {row.id: row for row in session.scalars(query)}
        for identifier in identifiers:
            _refuse_hidden(found.get(identifier), identifier, caller, param)
        return found

    def known(self, project_id: str) -> set[str]:
        """The ids of all files of a project."""
        with self._state.reading() as session:
            return set(session.scalars(select(File.id).where(File.project_id == project_id)))

    def room(self, project_id: str) -> int:
        """How many bytes the project may add; below 0 where batches wrote more."""
        with self._state.reading() as session:
            return _quota_of(session, project_id, self._quota_bytes) - _used(session, project_id)

    def exists(self, identifier: str) -> bool:
        with self._state.reading() as session:
            return session.get(File, identifier) is not None

    def set_allows(self, allows: Mapping[str, Sequence[str] | None]) -> None:
        """From now on these say who may see the files, by their ids; None: everyone in the project."""
        with self._state.session() as session:
            for identifier, allow in allows.items():
                row = session.get(File, identifier)
                if row is not None:
                    row.allow = None if allow is None else sorted(allow)

    def list(
        self,
        caller: Caller,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 10_000,
        order: Literal["asc", "desc"] = "desc",
    ) -> list[File]:
        """Files of the caller's project by time of upload; `after` is the id of the last one already seen.

        Raises: NotFoundError if `after` is none of them.
        """
        place = tuple_(File.created_at, File.id)
        query = select(File).where(File.project_id == caller.project_id)
        if purpose is not None:
            query = query.where(File.purpose == purpose)
        with self._state.reading() as session:
            if after is not None:
                last = _get(session, after, caller, "after")
                seen = (last.created_at, last.id)
                query = query.where(place < seen if order == "desc" else place > seen)
            columns = (File.created_at, File.id)
            query = query.order_by(*(column.desc() if order == "desc" else column for column in columns))
            if caller.sees is None and caller.collections is None:
                query = query.limit(limit)
            rows = session.scalars(query.execution_options(yield_per=ROWS_AT_ONCE))
            return list(islice((row for row in rows if caller.may_open(row.allow, row.key_id)), limit))

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
            if path.name in known:
                continue
            with suppress(FileNotFoundError):  # deleted meanwhile
                if path.stat().st_mtime < time.time() - ABANDONED_AFTER_SECONDS:
                    path.unlink()


def clean_filename(name: str) -> str:
    """The last part of what a client calls its file, without what cannot be shown: safe to save under."""
    base = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(character for character in base if character.isprintable()).strip()
    return "upload" if shown in ("", ".", "..") else shown[:FILENAME_CHARACTERS]


def _chunks(path: Path) -> Iterable[bytes]:
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            yield chunk


def _get(session: Session, identifier: str, caller: Caller, param: str) -> File:
    return _refuse_hidden(session.get(File, identifier), identifier, caller, param)


def _refuse_hidden(row: File | None, identifier: str, caller: Caller, param: str) -> File:
    if row is None or row.project_id != caller.project_id or not caller.may_open(row.allow, row.key_id):
        raise NotFoundError(f"No such File object: {identifier:.80}", param=param)
    return row


def _link(source: Path, target: Path, size: int) -> bool:
    """Whether `target` now names the bytes of `source`. Not where links are not supported, where the bytes have
    as many as they can have, or where they were deleted or cut off meanwhile."""
    with suppress(OSError):
        if source.stat().st_size == size:
            os.utime(source)  # remove_abandoned() judges a name without a row by this time
            os.link(source, target)
            return True
    return False


def _contents(project_id: str) -> Select[tuple[str, int]]:
    """What takes space of a project: equal files once."""
    mine = File.project_id == project_id, File.purpose != FINE_TUNE_RESULTS
    return select(File.sha256, File.bytes).where(*mine).distinct()


def _used(session: Session, project_id: str) -> int:
    return session.scalar(select(func.coalesce(func.sum(_contents(project_id).subquery().c.bytes), 0))) or 0


def _quota_of(session: Session, project_id: str, default: int) -> int:
    return session.get_one(Project, project_id).file_quota_bytes or default


def _refuse_over_quota(session: Session, row: File, quota_bytes: int) -> None:
    """Called in the transaction that adds `row`: of two uploads at once, the second sees the first."""
    if row.purpose in (FINE_TUNE_RESULTS, BATCH_OUTPUT):
        return
    if session.execute(_contents(row.project_id).where(File.sha256 == row.sha256)).first() is not None:
        return
    quota_bytes, used = _quota_of(session, row.project_id, quota_bytes), _used(session, row.project_id)
    if used + row.bytes > quota_bytes:
        raise QuotaExceededError(
            f"{row.filename} has {row.bytes:,} bytes, and the project's files already take {used:,} of the "
            f"{quota_bytes:,} that it may use",
            hint="delete files that are no longer needed, or raise server.project_quota_bytes",
            param="file",
        )
