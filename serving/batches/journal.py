"""What was answered of a batch, on the disk before it counts.

Each holder of a batch appends to a file of its own, and the truth is all of them together: of two answers to one
line the first found holds. So a process that was thought dead can write on without harm, a record that is not as it
was written (cut off by a kill or a full disk) is nobody's, and the answers, which can be large, stay out of the
state database. They go when the batch ends.
"""

import asyncio
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from local_llm.fileio import fsync_path
from serving.answering.events import TokenUsage

SUFFIX = ".journal"

log = logging.getLogger("local_llm.batches")


@dataclass(frozen=True)
class Entry:
    """An answered line of the input. `text` is its line of the output, without an end."""

    number: int
    succeeded: bool
    usage: TokenUsage
    text: bytes

    def record(self) -> bytes:
        usage = self.usage
        fields = (
            self.number, int(self.succeeded), usage.input_tokens, usage.cached_tokens, usage.output_tokens
        )  # fmt: skip
        content = b"\t".join([*(str(one).encode() for one in fields), self.text])
        return b"%08x\t%b\n" % (zlib.crc32(content), content)


def _parse(record: bytes) -> Entry:
    """Raises: ValueError if it is not as it was written."""
    checksum, _, content = record.rstrip(b"\n").partition(b"\t")
    if int(checksum, 16) != zlib.crc32(content):
        raise ValueError("the checksum is another")
    number, succeeded, tokens, cached, output, text = content.split(b"\t", 5)
    usage = TokenUsage(int(tokens), int(cached), int(output))
    return Entry(int(number), succeeded == b"1", usage, text)


class Journal:
    """One holder's file. Answers that come while others are being written go to the disk together after them.

    After a write that failed it takes no more: what would come behind a torn record could be lost with it, and what
    the disk holds after an fsync that failed is known to nobody.
    """

    def __init__(self, folder: Path, token: str):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{token}{SUFFIX}"
        self._handle = path.open("xb", buffering=0)
        fsync_path(folder)
        fsync_path(folder.parent)
        self._length, self._failure = 0, ""
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def add(self, entry: Entry) -> None:
        """Returns when the entry is durable. Raises: OSError."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry.record(), done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        await done

    async def close(self) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._handle.close()

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            error: OSError | None = None
            try:
                await asyncio.to_thread(self._write, b"".join(record for record, _ in group))
            except OSError as found:
                error = found
            for _, done in group:
                if done.done():  # nobody waits any more
                    continue
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

    def _write(self, data: bytes) -> None:
        if self._failure:
            raise OSError(f"an earlier write failed: {self._failure}")
        try:
            view = memoryview(data)
            while view:
                view = view[self._handle.write(view) :]
            os.fsync(self._handle.fileno())
        except OSError as error:
            self._failure = str(error)
            with suppress(OSError):  # a torn record that stays is passed over
                os.ftruncate(self._handle.fileno(), self._length)
            raise
        self._length += len(data)


@dataclass(frozen=True)
class _Place:
    path: Path
    start: int
    length: int


@dataclass
class Answered:
    """What is known to be answered: read from all journals once, then added to by the holder."""

    completed: int = 0
    failed: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)
    numbers: set[int] = field(default_factory=set)

    @property
    def total(self) -> int:
        return len(self.numbers)

    def note(self, entry: Entry) -> None:
        if entry.number in self.numbers:
            return
        self.numbers.add(entry.number)
        self.completed += entry.succeeded
        self.failed += not entry.succeeded
        self.usage.input_tokens += entry.usage.input_tokens
        self.usage.cached_tokens += entry.usage.cached_tokens
        self.usage.output_tokens += entry.usage.output_tokens


def read_answered(folder: Path) -> Answered:
    found = Answered()
    for entry, _ in _entries(folder):
        found.note(entry)
    return found


class AnsweredLines:
    """The lines of the output by the numbers of those they answer, read when asked for."""

    def __init__(self, folder: Path):
        self.answered = Answered()
        self._places: dict[int, tuple[bool, _Place]] = {}
        for entry, place in _entries(folder):
            self.answered.note(entry)
            self._places.setdefault(entry.number, (entry.succeeded, place))

    def lines(self, *, succeeded: bool) -> Iterator[tuple[int, bytes]]:
        """In the order of the input."""
        with ExitStack() as stack:
            handles: dict[Path, IO[bytes]] = {}
            for number in sorted(self._places):
                outcome, place = self._places[number]
                if outcome is not succeeded:
                    continue
                if place.path not in handles:
                    handles[place.path] = stack.enter_context(place.path.open("rb"))
                handle = handles[place.path]
                handle.seek(place.start)
                yield number, _parse(handle.read(place.length)).text


def _entries(folder: Path) -> Iterator[tuple[Entry, _Place]]:
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with path.open("rb") as handle:
            start = 0
            for record in handle:
                place, start = _Place(path, start, len(record)), start + len(record)
                try:
                    entry = _parse(record)
                except ValueError as error:
                    log.warning("%s at byte %d is no answer, it is asked again: %s", path, place.start, error)
                    continue
                yield entry, place
