"""Batches as their holder sees them: claimed under a lease, counted, ended.

A lease is a fence, as for jobs: the row holds a token of whoever works on the batch, and what names another is
refused. Several gateways share the batches in this way, and one that was killed loses its own after seconds.
"""

import time
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Select, func, not_, or_, select
from sqlalchemy.orm import Session

from local_llm.errors import ConflictError
from local_llm.identifiers import new_id, now
from local_llm.state import BatchRow, State
from serving.answering.events import TokenUsage
from serving.batches.requests import InputProblem, InputSummary
from serving.batches.rows import UNFINISHED

LEASE_SECONDS = 15.0
# Of one key, so that its many batches leave the others' their turn.
MOST_OF_A_KEY = 2

End = Literal["completed", "failed", "expired", "cancelled"]


class LeaseLostError(ConflictError):
    """Another process has the batch by now: the holder must stop."""

    code = "lease_lost"


@dataclass(frozen=True)
class Lease:
    batch_id: str
    token: str


@dataclass(frozen=True)
class Counts:
    completed: int
    failed: int
    usage: TokenUsage


def claim_next(state: State, *, lease_seconds: float = LEASE_SECONDS, ending_only: bool = False) -> Lease | None:
    """The oldest batch that nobody works on; None if there is none.

    Of a key that has several in work already, and with `ending_only` of any, it is one that has only to be brought
    to its end: cancelled, or past its time.
    """
    moment = time.time()
    query = _waiting(moment, ending_only)
    with state.reading() as session:  # looked at every second: writers are not held up for nothing
        if session.scalars(query).first() is None:
            return None
    with state.session() as session:
        row = session.scalars(query).first()
        if row is None:
            return None
        row.lease, row.lease_until = new_id("lease_"), moment + lease_seconds
        return Lease(row.id, row.lease)


def _waiting(moment: float, ending_only: bool) -> Select[tuple[BatchRow]]:
    unfinished, key = BatchRow.status.in_(UNFINISHED), func.coalesce(BatchRow.key_id, "")
    ends = or_(BatchRow.status == "cancelling", BatchRow.expires_at <= moment)
    in_work = select(key).where(unfinished, BatchRow.lease_until >= moment, not_(ends))
    busy = in_work.group_by(BatchRow.key_id).having(func.count() >= MOST_OF_A_KEY)
    free = or_(BatchRow.lease_until.is_(None), BatchRow.lease_until < moment)
    may = ends if ending_only else or_(ends, key.not_in(busy))
    return select(BatchRow).where(unfinished, free, may).order_by(BatchRow.created_at, BatchRow.id).limit(1)


def load(state: State, lease: Lease) -> BatchRow:
    """Raises: LeaseLostError."""
    with state.reading() as session:
        return held(session, lease)


def renew(state: State, lease: Lease, counts: Counts | None, *, lease_seconds: float = LEASE_SECONDS) -> BatchRow:
    """The row as it is now, told how far the work is. Raises: LeaseLostError."""
    with state.session() as session:
        row = held(session, lease)
        row.lease_until = time.time() + lease_seconds
        if counts is not None:
            _count(row, counts)
        return row


def release(state: State, lease: Lease, *, pause_seconds: float = 0) -> None:
    """Whoever claims it next goes on with it, after a pause. Harmless if it is held no longer."""
    with state.session() as session:
        row = session.get(BatchRow, lease.batch_id)
        if row is not None and row.lease == lease.token:
            row.lease, row.lease_until = None, time.time() + pause_seconds if pause_seconds else None


def begin(state: State, lease: Lease, found: InputSummary) -> None:
    """The input was checked. Raises: LeaseLostError."""
    with state.session() as session:
        row = held(session, lease)
        row.total, row.model, row.in_progress_at = found.total, found.model, now()
        if row.status == "validating":  # else it was cancelled meanwhile
            row.status = "in_progress"


def begin_finalizing(state: State, lease: Lease) -> None:
    """Raises: LeaseLostError."""
    with state.session() as session:
        row = held(session, lease)
        row.finalizing_at = row.finalizing_at or now()
        if row.status == "in_progress":
            row.status = "finalizing"


def end(
    state: State,
    lease: Lease,
    ending: End,
    *,
    counts: Counts | None = None,
    output_file_id: str | None = None,
    error_file_id: str | None = None,
    problems: list[InputProblem] | None = None,
) -> None:
    """One that is being cancelled ends cancelled, however far it came. Raises: LeaseLostError, changing nothing."""
    with state.session() as session:
        row = held(session, lease)
        ending = "cancelled" if row.status == "cancelling" else ending
        row.status, row.lease, row.lease_until = ending, None, None
        setattr(row, f"{ending}_at", now())
        row.output_file_id, row.error_file_id = output_file_id, error_file_id
        if counts is not None:
            _count(row, counts)
        if problems:
            row.problems = {"data": [problem.as_json() for problem in problems]}


def is_unfinished(state: State, batch_id: str) -> bool:
    with state.reading() as session:
        row = session.get(BatchRow, batch_id)
        return row is not None and row.status in UNFINISHED


def unfinished_of(state: State, project_id: str) -> list[str]:
    """The ids of a project's batches that have not ended."""
    with state.reading() as session:
        query = select(BatchRow.id).where(BatchRow.project_id == project_id, BatchRow.status.in_(UNFINISHED))
        return list(session.scalars(query))


def _count(row: BatchRow, counts: Counts) -> None:
    row.completed, row.failed = counts.completed, counts.failed
    row.input_tokens, row.output_tokens = counts.usage.input_tokens, counts.usage.output_tokens
    row.cached_tokens = counts.usage.cached_tokens


def held(session: Session, lease: Lease) -> BatchRow:
    """The batch, if the lease still holds it. A lease that ran out but that nobody took is still good."""
    row = session.get(BatchRow, lease.batch_id)
    if row is None or row.status not in UNFINISHED or row.lease != lease.token:
        raise LeaseLostError(f"batch {lease.batch_id} is no longer held by this process")
    return row
