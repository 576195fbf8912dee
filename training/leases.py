"""Fine-tuning jobs as their holder sees them: claimed under a lease, reported on, finished. No model library here.

A lease is a fence. Whoever claims a job writes a fresh token into its row and renews it while at work; every
write names the token and is refused once the row holds another, so a process that was thought dead cannot
overwrite what its successor does.
"""

import math
import time
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from local_llm.errors import ConflictError, LocalLLMError
from local_llm.identifiers import new_id, now
from local_llm.permissions import Caller
from local_llm.state import Job, JobCheckpoint, State
from training.job_rows import UNFINISHED, Level, add_event, close, finite, forgive_attempt, get_row, leave

LEASE_SECONDS = 60.0

MAXIMUM_ATTEMPTS = 3

Owner = Literal["trainer", "cli"]


class LeaseLostError(ConflictError):
    """The job was cancelled, or another process has claimed it: the holder must stop."""

    code = "lease_lost"


@dataclass(frozen=True)
class Lease:
    job_id: str
    token: str  # "trainer:…" or "cli:…"


def claim_next(state: State, owner: Owner = "trainer", *, lease_seconds: float = LEASE_SECONDS) -> Lease | None:
    """Claims the oldest job that waits, or whose holder let its lease run out; None if there is none.

    A job that was begun too often fails instead.
    """
    with state.session() as session:
        expired = (Job.status == "running") & (Job.lease_until < time.time())
        query = select(Job).where(or_(Job.status == "queued", expired)).order_by(Job.created_at, Job.id)
        for job in session.scalars(query):
            if job.attempts < MAXIMUM_ATTEMPTS:
                return take(session, job, holder(state, owner), lease_seconds)
            _fail(session, job, _died_too_often())
    return None


def claim(
    state: State, job_id: str, caller: Caller, owner: Owner, *, lease_seconds: float = LEASE_SECONDS
) -> Lease:
    """Claims one job that waits, is paused, or whose holder let its lease run out.

    Raises: NotFoundError; ConflictError if it is finished or held.
    """
    with state.session() as session:
        job = get_row(session, job_id, caller)
        if job.status not in UNFINISHED:
            raise ConflictError(f"job {job_id} has {job.status}; there is nothing to go on with", param="id")
        if job.status == "running" and job.lease_until is not None and job.lease_until >= time.time():
            seconds = math.ceil(job.lease_until - time.time())
            raise ConflictError(
                f"job {job_id} is held by another process",
                hint=f"pause it first; if that process is dead, try again in {seconds} s",
                param="id",
            )
        return take(session, job, holder(state, owner), lease_seconds)


def renew(state: State, lease: Lease, *, lease_seconds: float = LEASE_SECONDS) -> None:
    """Raises: LeaseLostError."""
    with state.session() as session:
        _held(session, lease).lease_until = time.time() + lease_seconds


def load(state: State, lease: Lease) -> Job:
    """The job as its holder sees it. Raises: LeaseLostError."""
    with state.session() as session:
        return _held(session, lease)


def report_event(
    state: State, lease: Lease, message: str, *, level: Level = "info", data: dict[str, Any] | None = None
) -> None:
    """Adds an event; `data` makes it one of type "metrics". Raises: LeaseLostError."""
    with state.session() as session:
        _held(session, lease)
        add_event(session, lease.job_id, message, level=level, data=data)


def set_hyperparameters(state: State, lease: Lease, resolved: dict[str, Any]) -> None:
    """Replaces what was asked for ("auto") by what is trained with, in both places. Raises: LeaseLostError."""
    with state.session() as session:
        job = _held(session, lease)
        job.hyperparameters = resolved
        job.method = {**job.method, job.method["type"]: {"hyperparameters": resolved}}


def set_output_name(state: State, lease: Lease, name: str) -> None:
    """The name that the finished model will bear. Raises: LeaseLostError."""
    with state.session() as session:
        _held(session, lease).output_name = name


def set_micro_batch_tokens(state: State, lease: Lease, tokens: int) -> None:
    """Padded tokens a pass that memory suffices for, found out while training. Raises: LeaseLostError."""
    with state.session() as session:
        _held(session, lease).micro_batch_tokens = tokens


def set_result_files(state: State, lease: Lease, file_ids: list[str]) -> None:
    """Files that tell how the job went. Raises: LeaseLostError."""
    with state.session() as session:
        _held(session, lease).result_files = file_ids


def note_progress(state: State, lease: Lease) -> None:
    """A step checkpoint was written: no attempt up to here counts any more. Raises: LeaseLostError."""
    with state.session() as session:
        _held(session, lease).attempts = 0


def add_checkpoint(
    state: State, lease: Lease, *, step_number: int, model_name: str, metrics: dict[str, Any]
) -> JobCheckpoint:
    """Lists a published checkpoint; one of the same step, from an earlier attempt, is replaced.

    `metrics` are named as in the API. Raises: LeaseLostError.
    """
    with state.session() as session:
        _held(session, lease)
        query = select(JobCheckpoint).where(
            JobCheckpoint.job_id == lease.job_id, JobCheckpoint.step_number == step_number
        )
        row = session.scalars(query).first()
        if row is None:
            row = JobCheckpoint(id=new_id("ftckpt_"), job_id=lease.job_id, step_number=step_number)
            session.add(row)
        row.model_name, row.metrics, row.created_at = model_name, finite(metrics), now()
    return row


def remove_checkpoint(state: State, lease: Lease, step_number: int) -> None:
    """Unlists a checkpoint; harmless if there is none. Raises: LeaseLostError."""
    with state.session() as session:
        _held(session, lease)
        session.execute(
            delete(JobCheckpoint).where(
                JobCheckpoint.job_id == lease.job_id, JobCheckpoint.step_number == step_number
            )
        )


def succeed(state: State, lease: Lease, *, fine_tuned_model: str, trained_tokens: int) -> None:
    """Raises: LeaseLostError."""
    with state.session() as session:
        job = _held(session, lease)
        job.fine_tuned_model = fine_tuned_model
        job.trained_tokens = trained_tokens
        close(job, "succeeded")
        add_event(session, job.id, f"New fine-tuned model created: {fine_tuned_model}")
        add_event(session, job.id, "The job has successfully completed")


def fail(state: State, lease: Lease, error: LocalLLMError) -> None:
    """Ends the job and unlists its checkpoints; their adapters are the caller's to delete.

    Raises: LeaseLostError.
    """
    with state.session() as session:
        _fail(session, _held(session, lease), error)


def put_back(state: State, lease: Lease, reason: str, *, counts: bool = True) -> None:
    """Back into the queue; an attempt that was stopped on purpose does not count. Raises: LeaseLostError.

    The third attempt that ended early without a step checkpoint fails the job instead.
    """
    with state.session() as session:
        _requeue(session, _held(session, lease), reason, counts=counts)


def put_back_all(state: State, owner: Owner) -> list[str]:
    """Queues again what a dead `owner` was at here: not the jobs' doing, so it does not count against them.
    Those of other hosts that share the state are at work, or lose their leases by themselves.

    Only for the one process that holds the owner's lock.
    """
    with state.session() as session:
        query = select(Job).where(Job.status == "running", Job.lease.startswith(holder(state, owner)))
        jobs = list(session.scalars(query))
        for job in jobs:
            reason = "The training process was interrupted; the job goes on from its last checkpoint"
            _requeue(session, job, reason, counts=False)
    return [job.id for job in jobs]


def _held(session: Session, lease: Lease) -> Job:
    """The job, if the lease still holds it. A lease that ran out but that nobody took is still good."""
    job = session.get(Job, lease.job_id)
    if job is None or job.status != "running" or job.lease != lease.token:
        found = "gone" if job is None else job.status
        raise LeaseLostError(f"job {lease.job_id} is {found} and no longer held by this process")
    return job


def holder(state: State, owner: Owner) -> str:
    """What the tokens of an owner on this host begin with."""
    return f"{owner}:{state.host}:" if state.host else f"{owner}:"


def take(session: Session, job: Job, holder: str, lease_seconds: float) -> Lease:
    lease = Lease(job.id, new_id(holder))
    job.status = "running"
    job.lease = lease.token
    job.lease_until = time.time() + lease_seconds
    job.attempts += 1
    add_event(session, job.id, "Fine-tuning job started")
    return lease


def _requeue(session: Session, job: Job, reason: str, *, counts: bool) -> None:
    if not counts:
        forgive_attempt(job)
    elif job.attempts >= MAXIMUM_ATTEMPTS:
        _fail(session, job, _died_too_often())
        return
    leave(job, "queued")
    add_event(session, job.id, reason, level="warn")


def _fail(session: Session, job: Job, error: LocalLLMError) -> None:
    close(job, "failed")
    job.error = {"code": error.code or error.type, "message": error.message, "param": error.param}
    session.execute(delete(JobCheckpoint).where(JobCheckpoint.job_id == job.id))
    add_event(session, job.id, f"The job failed: {error.message}", level="error")


def _died_too_often() -> LocalLLMError:
    return LocalLLMError(
        f"the training process died {MAXIMUM_ATTEMPTS} times without progress in between; its log tells why"
    )
