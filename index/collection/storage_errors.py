"""What the disk and SQLite have to say, in the words of a user."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_llm.errors import (
    ConflictError,
    IntegrityError,
    InvalidInputError,
    LocalLLMError,
    OutOfSpaceError,
    UnavailableError,
)

# Source: https://www.sqlite.org/rescode.html. A full disk is told by where it is met: SQLITE_FULL,
# SQLITE_IOERR_WRITE, _FSYNC, _TRUNCATE, _SHMSIZE.
OUT_OF_SPACE = {13, 778, 1034, 1546, 4874}
BUSY, DAMAGED, CONSTRAINT, NO_DATABASE = 5, 11, 19, 26


@contextmanager
def told_clearly(path: Path) -> Iterator[None]:
    """path: the database of a collection, in a folder named by the collection's id."""
    try:
        yield
    except sqlite3.Error as error:
        raise _of_sqlite(error, path) from error
    except OSError as error:
        raise of_disk(error, path.parent) from error
    except UnicodeDecodeError as error:
        raise damaged(path, str(error)) from error


@contextmanager
def read_back(path: Path) -> Iterator[None]:
    """For a block that makes something of all that a database holds: what cannot be made of it was not written."""
    try:
        with told_clearly(path):
            yield
    except (ValueError, LookupError, TypeError, InvalidInputError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error


def damaged(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        f"the collection {path.parent.name} is damaged: {reason!a} ({path})",
        hint="bring the file back from a backup, or delete the collection and index its documents anew",
    )


def of_disk(error: OSError, folder: Path) -> LocalLLMError:
    # NumPy and FAISS tell of a short write without a number.
    if error.errno in (errno.ENOSPC, errno.EDQUOT, None):
        return _out_of_space(folder)
    return LocalLLMError(f"{folder} cannot be written: {os.strerror(error.errno)}", hint=_hint(folder))


def _of_sqlite(error: sqlite3.Error, path: Path) -> LocalLLMError:
    code, collection = getattr(error, "sqlite_errorcode", 0), path.parent.name
    if code in OUT_OF_SPACE:
        return _out_of_space(path.parent)
    if code & 0xFF in (DAMAGED, NO_DATABASE):
        return damaged(path, str(error))
    if code & 0xFF == CONSTRAINT:
        return ConflictError(f"the collection {collection}: it is there already: {error}")
    if code & 0xFF == BUSY:
        return UnavailableError(f"the collection {collection} is held by another process: {error}")
    return LocalLLMError(f"the collection {collection}: {error} ({path})", hint=_hint(path.parent))


def _out_of_space(folder: Path) -> LocalLLMError:
    return OutOfSpaceError(f"there is no space left for {folder}", hint="free some and try again")


def _hint(folder: Path) -> str:
    return f"see that the disk is well and that its folder belongs to whoever runs this: ls -ld {folder}"
