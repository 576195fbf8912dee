"""What the workers of one bulk encoding do, the same for all of them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from index.interface import Skipped, Source, Splitting
from local_llm import __version__
from local_llm.errors import InvalidInputError
from local_llm.settings import Settings

# A part is what one worker encodes at a time, and what is lost when it dies.
PART_FILES = 256
PART_BYTES = 16 << 20


@dataclass(frozen=True)
class Bound:
    """An encoder of the model store as it has to be on every host."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class Plan:
    """Encode with `encoder` the passages that `splitter` and the sizes cut. Folders are those of each host."""

    version: str
    encoder: Bound
    splitter: Bound
    chunk_tokens: int
    overlap_tokens: int
    models: str
    derived: str
    device: str
    parse_timeout_seconds: float
    parse_memory_bytes: int

    @property
    def identity(self) -> dict[str, Any]:
        """What vectors depend on. Where they are used only the encoder has to be the same: a passage that was cut
        otherwise is another text."""
        return {
            "encoder": asdict(self.encoder),
            "splitter": asdict(self.splitter),
            "chunk_tokens": self.chunk_tokens,
            "overlap_tokens": self.overlap_tokens,
        }


@dataclass(frozen=True)
class Part:
    """`key`: of the files' names, sizes and times, so that a part is done once."""

    key: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class PartReport:
    """What became of a part. `seconds`: of the one worker that encoded it; `worker`: HOST:PROCESS; `unreadable`:
    how many of those skipped the system did not give to it, so that another try may."""

    documents: int
    skipped: tuple[Skipped, ...]
    passages: int
    tokens: int
    seconds: float
    worker: str
    unreadable: int = 0


def make_plan(settings: Settings, encoder: Bound, splitter: Bound, splitting: Splitting) -> Plan:
    """Sizes of None: those of the settings."""
    limits, place = settings.index, settings.place
    return Plan(
        version=__version__,
        encoder=encoder,
        splitter=splitter,
        chunk_tokens=limits.chunk_tokens if splitting.chunk_tokens is None else splitting.chunk_tokens,
        overlap_tokens=limits.overlap_tokens if splitting.overlap_tokens is None else splitting.overlap_tokens,
        models=str(place.models),
        derived=str(place.derived),
        device=limits.device,
        parse_timeout_seconds=limits.parse_timeout_seconds,
        parse_memory_bytes=limits.parse_memory_bytes,
    )


def parts_of(sources: Sequence[Source]) -> Iterator[Part]:
    """In their order, which should be the same each time: parts are those of the run before then.

    Raises: InvalidInputError for a file that is not there any more.
    """
    group: list[Source] = []
    marks: list[tuple[str, int, int]] = []
    size = 0
    for source in sources:
        mark = _mark(source)
        if group and (len(group) == PART_FILES or size + mark[1] > PART_BYTES):
            yield _part(group, marks)
            group, marks, size = [], [], 0
        group.append(source)
        marks.append(mark)
        size += mark[1]
    if group:
        yield _part(group, marks)


def _mark(source: Source) -> tuple[str, int, int]:
    try:
        found = source.path.stat()
    except OSError as error:
        raise InvalidInputError(f"{source.path} cannot be read: {error.strerror}", param="path") from None
    return str(source.path), found.st_size, found.st_mtime_ns


def _part(sources: list[Source], marks: list[tuple[str, int, int]]) -> Part:
    key = hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:32]
    return Part(key, tuple(sources))


def part_to_json(part: Part) -> str:
    return json.dumps({"key": part.key, "sources": [asdict(one) | {"path": str(one.path)} for one in part.sources]})


def part_from_json(text: str) -> Part:
    value = json.loads(text)
    return Part(value["key"], tuple(Source(**one | {"path": Path(one["path"])}) for one in value["sources"]))


def report_to_json(report: PartReport) -> str:
    return json.dumps(asdict(report))


def report_from_json(text: str) -> PartReport:
    value = json.loads(text)
    return PartReport(**value | {"skipped": tuple(Skipped(**one) for one in value["skipped"])})
