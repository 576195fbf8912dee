"""A corpus encoded part by part: what is done stays done, whatever ends the run."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

from index.bulk import encoded
from index.bulk.plan import Part, PartReport, Plan, parts_of
from index.bulk.worker import Worker
from index.interface import Report, Skipped, Source


class Workers(Protocol):
    """Who encodes: this process (InProcess), or many on many hosts (index.bulk.ray_data.OnRay)."""

    def run(self, plan: Plan, into: Path, parts: Sequence[Part]) -> Iterator[PartReport]:
        """As they are done, in any order. Raises: what befell a worker."""


class InProcess:
    def run(self, plan: Plan, into: Path, parts: Sequence[Part]) -> Iterator[PartReport]:
        if parts:
            with closing(Worker(plan, into)) as worker:
                yield from map(worker.encode, parts)


@dataclass(frozen=True)
class BulkReport:
    """documents, skipped and passages: of all parts, also those of runs before. encoded (passages),
    encoded_documents, tokens and worker_seconds: of what this run encoded; seconds: by the clock; workers:
    HOST:PROCESS."""

    documents: int
    skipped: tuple[Skipped, ...]
    passages: int
    encoded: int
    encoded_documents: int
    tokens: int
    seconds: float
    worker_seconds: float
    workers: tuple[str, ...]


def encode_corpus(
    plan: Plan, sources: Sequence[Source], into: Path, workers: Workers, report: Report
) -> BulkReport:
    """Fills the folder. Progress counts documents.

    Raises: LockedError while another run fills it; ConflictError if the folder is of another plan, or a host
        differs; UnavailableError; OutOfSpaceError.
    """
    began = perf_counter()
    with encoded.filling(into, plan):
        before, now = _encode_parts(plan, sources, into, workers, report)
    return _summed(before, now, perf_counter() - began)


def _encode_parts(
    plan: Plan, sources: Sequence[Source], into: Path, workers: Workers, report: Report
) -> tuple[list[PartReport], list[PartReport]]:
    """What was done before, and what now."""
    before: list[PartReport] = []
    left: list[Part] = []
    for part in parts_of(sources):
        done = encoded.finished(into, part.key)
        if done is None:
            left.append(part)
        else:
            before.append(done)
    now: list[PartReport] = []
    count = sum(map(_files, before))
    report(count, len(sources), "")
    for made in workers.run(plan, into, left):
        now.append(made)
        count += _files(made)
        report(count, len(sources), made.worker)
    return before, now


def _files(part: PartReport) -> int:
    return part.documents + len(part.skipped)


def _summed(before: list[PartReport], now: list[PartReport], seconds: float) -> BulkReport:
    every = [*before, *now]
    return BulkReport(
        documents=sum(part.documents for part in every),
        skipped=tuple(skipped for part in every for skipped in part.skipped),
        passages=sum(part.passages for part in every),
        encoded=sum(part.passages for part in now),
        encoded_documents=sum(part.documents for part in now),
        tokens=sum(part.tokens for part in now),
        seconds=seconds,
        worker_seconds=sum(part.seconds for part in now),
        workers=tuple(sorted({part.worker for part in now})),
    )
