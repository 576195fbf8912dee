"""Files that are either whole or not there, whatever the moment of a power cut."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CHUNK_BYTES = 1 << 20


def fsync_path(path: Path) -> None:
    """Flushes a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Publishes `data` at `path`."""
    with staged_file(path) as handle:
        handle.write(data)


def bytes_below(folder: Path) -> int:
    """Of all files in a folder and below, some of which may be deleted meanwhile."""
    return sum(_size_of(Path(root, name)) for root, _, names in os.walk(folder) for name in names)


@contextmanager
def staged_file(path: Path, *, replace: bool = True) -> Iterator[IO[bytes]]:
    """Yields a file that is published at `path` on success and vanishes on error.

    Temporary file, fsync, rename, fsync of the folder.

    Raises: FileExistsError if `path` exists by then and is not to be replaced.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        if path.exists() and not replace:
            raise FileExistsError(path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_file(path, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `target` on success and vanishes on error.

    Raises: FileExistsError if `target` exists by then (published folders are immutable).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".staging-{uuid.uuid4().hex}"
    staging.mkdir()
    try:
        yield staging
        for path in staging.rglob("*"):
            fsync_path(path)
        fsync_path(staging)
        if target.exists():
            raise FileExistsError(target)
        staging.rename(target)
        fsync_path(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_staging(parent: Path) -> None:
    """Deletes what killed processes left half-written. Call it only under the lock that guards `parent`."""
    for path in parent.glob(".staging-*"):
        shutil.rmtree(path, ignore_errors=True)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
