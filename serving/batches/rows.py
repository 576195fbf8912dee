"""Batches as their clients see them: created, listed, cancelled. Whoever works on one holds a lease (leases.py)."""

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from local_llm.errors import ConflictError, InvalidInputError, NotFoundError, RateLimitError
from local_llm.files import BATCH
from local_llm.identifiers import new_ordered_id, now
from local_llm.permissions import Caller
from local_llm.state import BatchRow, File, State
from serving.batches.requests import CreateBatch

WINDOW_SECONDS = 24 * 3600
# Unfinished ones. Whoever works on batches looks through them every second.
MOST_OF_A_KEY, MOST_OF_A_PROJECT = 100, 1000
ADVISED_SECONDS = 60

# A batch goes: validating, in_progress, finalizing, and completed, failed or expired; or cancelling and cancelled.
UNFINISHED = ("validating", "in_progress", "finalizing", "cancelling")


def create_batch(state: State, caller: Caller, asked: CreateBatch, server_url: str) -> BatchRow:
    """Acknowledged from here on; its lines are checked by whoever takes it.

    Raises: InvalidInputError; RateLimitError if too many have not ended.
    """
    with state.session() as session:
        _refuse_file(session, caller, asked.input_file_id)
        _refuse_too_many(session, caller)
        created_at = now()
        row = BatchRow(
            id=new_ordered_id("batch_"),
            project_id=caller.project_id,
            key_id=caller.key_id,
            endpoint=asked.endpoint,
            input_file_id=asked.input_file_id,
            server_url=server_url,
            labels=asked.metadata or {},
            status="validating",
            created_at=created_at,
            expires_at=created_at + WINDOW_SECONDS,
        )
        session.add(row)
        session.flush()
        session.refresh(row)
        return row


def get_batch(state: State, batch_id: str, caller: Caller) -> BatchRow:
    """Raises: NotFoundError, also for one of another project."""
    with state.reading() as session:
        return _get(session, batch_id, caller, "batch_id")


def list_batches(state: State, caller: Caller, *, after: str | None, limit: int) -> tuple[list[BatchRow], bool]:
    """Those of the caller's project, the newest first, and whether there are more. Raises: NotFoundError."""
    query = select(BatchRow).where(BatchRow.project_id == caller.project_id)
    with state.reading() as session:
        if after is not None:
            last = _get(session, after, caller, "after")
            query = query.where(tuple_(BatchRow.created_at, BatchRow.id) < (last.created_at, last.id))
        query = query.order_by(BatchRow.created_at.desc(), BatchRow.id.desc()).limit(limit + 1)
        rows = list(session.scalars(query))
    return rows[:limit], len(rows) > limit


def cancel_batch(state: State, batch_id: str, caller: Caller) -> BatchRow:
    """Soon nothing more of it is asked; what was answered is published. Raises: NotFoundError, ConflictError."""
    with state.session() as session:
        row = _get(session, batch_id, caller, "batch_id")
        if row.status not in UNFINISHED:
            raise ConflictError(f"batch {batch_id} is {row.status}: there is nothing to cancel", param="batch_id")
        if row.status != "cancelling":
            row.status, row.cancelling_at = "cancelling", now()
        return row


def _get(session: Session, batch_id: str, caller: Caller, param: str) -> BatchRow:
    row = session.get(BatchRow, batch_id)
    if row is None or row.project_id != caller.project_id:
        raise NotFoundError(f"No batch found with id '{batch_id:.80}'.", param=param)
    return row


def _refuse_too_many(session: Session, caller: Caller) -> None:
    waiting = select(func.count()).where(BatchRow.project_id == caller.project_id, BatchRow.status.in_(UNFINISHED))
    mine = waiting.where(BatchRow.key_id == caller.key_id)
    for whose, count, most in (("this key", mine, MOST_OF_A_KEY), ("the project", waiting, MOST_OF_A_PROJECT)):
        if (session.scalar(count) or 0) >= most:
            raise RateLimitError(
                f"{whose} has {most:,} batches that have not ended, and may have no more",
                hint="wait for some, cancel some, or put more requests into one",
                retry_after_seconds=ADVISED_SECONDS,
                limit="batches",
            )


def _refuse_file(session: Session, caller: Caller, file_id: str) -> None:
    row = session.get(File, file_id)
    if row is None or row.project_id != caller.project_id or not caller.may_open(row.allow, row.key_id):
        raise InvalidInputError(f"invalid input_file_id: {file_id:.80} does not exist", param="input_file_id")
    if row.purpose != BATCH:
        raise InvalidInputError(
            f"invalid input_file_id: the purpose of {file_id} is {row.purpose!r}; expected {BATCH!r}",
            param="input_file_id",
        )
