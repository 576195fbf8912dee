"""Exclusive locks between processes. The kernel frees them when their holder dies: none is ever stale."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_llm.errors import LockedError


@contextmanager
def exclusive_lock(path: Path, purpose: str, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock at `path` for the block; `wait` for it while another process has it.

    Raises: LockedError naming the holder, at once, unless told to wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise LockedError(
                f"{purpose} is held by {_signature(descriptor)}", hint="wait for it to finish, or stop that process"
            ) from None
        _sign(descriptor, f"process {os.getpid()} ({purpose})")
        yield
    finally:
        os.close(descriptor)


class Lock:
    """An exclusive lock taken and given back by hand, where a block cannot hold it."""

    def __init__(self, path: Path):
        self.path = path
        self._descriptor: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Of the lock if it is held. A child process that inherits it holds the lock too, until it ends."""
        return () if self._descriptor is None else (self._descriptor,)

    def take(self, holder: str) -> bool:
        """Whether the lock is ours now, told without waiting. `holder` is what others read of us."""
        if self._descriptor is not None:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        _sign(descriptor, holder)
        self._descriptor = descriptor
        return True

    def give_back(self) -> None:
        """The lock is free once the children that inherited it have ended, too: it is closed, not unlocked."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def holder_of(path: Path) -> str | None:
    """Who holds the lock at `path`, in its own words; None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that those who only look are not taken for holders by each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _signature(descriptor)
    finally:
        os.close(descriptor)
    return None


def _sign(descriptor: int, holder: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{holder}\n".encode(), 0)


def _signature(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
