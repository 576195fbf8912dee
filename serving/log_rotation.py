"""Logs that stay small: their lines are moved to NAME.log.1, and those to NAME.log.2, while more are written.

A child writes to its file through a descriptor that only it could change, so renaming the file changes nothing.
Nor does it write through us: a pipe would break when we are killed, and stop the child when we are slow. So its
lines are copied away and then cut out of the front of its file, by fallocate(2). The child appends meanwhile and
notices nothing: no line is lost, as happens where a file is copied and then emptied (logrotate's `copytruncate`).
A kill in between leaves lines twice. There are two ways of cutting, as not every file system knows both. ext4 and
XFS take the bytes out, and the file becomes shorter. tmpfs, btrfs and others free their place but leave a hole:
only its length in `ls` grows on. Where neither is known, a log is moved when its process starts the next time.
"""

import ctypes
import errno
import os
import tempfile
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import IO

from local_llm.fileio import staged_file
from local_llm.settings import LogSettings

# fallocate(2), linux/falloc.h
COLLAPSE_RANGE = 0x08
PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
# Of one line, looked for from behind; a longer one is cut in two.
LONGEST_LINE_BYTES = 1 << 20
COPY_BYTES = 1 << 24
# After a failure.
PAUSE_SECONDS = 60.0
# Fits any file system's blocks; tried on a file this long.
TRIAL_BYTES = 1 << 20


class Cut(Enum):
    """How bytes are taken from the front of a file that others append to."""

    COLLAPSE = "collapse"
    PUNCH = "punch"
    NONE = "none"


class LogRotation:
    """The logs of one folder."""

    def __init__(self, settings: LogSettings, talk: Callable[[str], None], cut: Cut | None = None):
        """`cut`: None tries what the file system knows, once it matters."""
        self._settings = settings
        self._talk = talk
        self._cut = cut
        self._look_at = 0.0

    def look(self, log: Path) -> None:
        """Moves the lines of a log that is too long, while its process writes on. Cheap where it is not."""
        if self._cut is Cut.NONE or time.monotonic() < self._look_at:
            return
        try:
            if log.stat().st_size > self._settings.max_bytes:
                self._move_lines(log)
        except FileNotFoundError:
            return
        except OSError as error:  # the disk is full: the lines stay where they are
            self._look_at = time.monotonic() + PAUSE_SECONDS
            self._talk(f"{log.name} is too long and cannot be moved: {error}")

    def start(self, log: Path) -> None:
        """Before a process starts: nobody has the log open, so it is moved whole."""
        try:
            if log.exists() and log.stat().st_size > self._settings.max_bytes:
                self._shift(log)
                log.replace(_older(log, 1))
        except OSError as error:
            self._talk(f"{log.name} is too long and cannot be moved: {error}")

    def _move_lines(self, log: Path) -> None:
        # Not for appending: what is written here belongs at the front.
        descriptor = os.open(log, os.O_RDWR)
        try:
            start = os.lseek(descriptor, 0, os.SEEK_DATA)  # behind the hole that an earlier cut left
            end = os.fstat(descriptor).st_size
            if end - start > self._settings.max_bytes and self._can_cut(log.parent):
                end = _end_of_last_line(descriptor, start, end)
                with staged_file(_older(log, 1)) as target:
                    _copy(descriptor, target, start, end)
                    self._shift(log)
                self._shorten(descriptor, start, end)
        finally:
            os.close(descriptor)

    def _can_cut(self, folder: Path) -> bool:
        if self._cut is None:
            self._cut = known_cut(folder)
        if self._cut is Cut.NONE:
            self._talk(f"the file system of {folder} lets logs be moved only when their process starts")
        return self._cut is not Cut.NONE

    def _shorten(self, descriptor: int, start: int, end: int) -> None:
        way, self._cut = self._cut, Cut.NONE  # if it fails, the same lines must not be copied again and again
        if way is Cut.COLLAPSE and start == 0:
            _collapse(descriptor, end)
        else:
            _fallocate(descriptor, PUNCH_HOLE_KEEP_SIZE, 0, end)
        self._cut = way

    def _shift(self, log: Path) -> None:
        """Makes room for NAME.log.1; the oldest goes if all are there."""
        kept = range(1, self._settings.keep)
        first_gap = next((number for number in kept if not _older(log, number).exists()), self._settings.keep)
        for number in range(first_gap - 1, 0, -1):
            _older(log, number).replace(_older(log, number + 1))


def known_cut(folder: Path) -> Cut:
    """What the file system of this folder can do, tried on a file without a name."""
    with tempfile.TemporaryFile(dir=folder) as trial:
        trial.write(b"\n" * TRIAL_BYTES)
        trial.flush()
        for mode, way in ((COLLAPSE_RANGE, Cut.COLLAPSE), (PUNCH_HOLE_KEEP_SIZE, Cut.PUNCH)):
            try:
                _fallocate(trial.fileno(), mode, 0, TRIAL_BYTES // 2)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    raise
            else:
                return way
    return Cut.NONE


def _older(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def _end_of_last_line(descriptor: int, start: int, end: int) -> int:
    """Behind the last line end before `end`, so that no line is split between two files."""
    begin = end - min(LONGEST_LINE_BYTES, (end - start) // 2)
    found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
    return end if found < 0 else begin + found + 1


def _copy(source: int, target: IO[bytes], start: int, end: int) -> None:
    """Without the zeros that a cut within a block left at the front."""
    head = os.pread(source, min(COPY_BYTES, end - start), start)
    target.write(head.lstrip(b"\0"))
    target.flush()
    start += len(head)
    while start < end:
        start += os.sendfile(target.fileno(), source, start, min(COPY_BYTES, end - start))


def _collapse(descriptor: int, end: int) -> None:
    """Takes the bytes before `end` away. Only whole blocks can be; what is left of them becomes one blank line."""
    block = os.fstatvfs(descriptor).f_bsize
    whole = end // block * block
    if whole == os.fstat(descriptor).st_size:  # it may not reach the end
        whole -= block
    _fallocate(descriptor, COLLAPSE_RANGE, 0, whole)
    if end > whole:
        os.pwrite(descriptor, b" " * (end - whole - 1) + b"\n", 0)


def _fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), of which Python offers only the allocating kind."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
