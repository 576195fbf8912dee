"""Fine-tuning jobs as rows: created, claimed under a lease, reported on, finished. No model library here.

A lease is a fence. Whoever claims a job writes a fresh token into its row and renews it while at work; every
write names the token and is refused once the row holds another, so a process that was thought dead cannot
overwrite what its successor does. Statuses and wording of events are the hosted API's.
"""

import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy.orm import Session

from local_llm.errors import ConflictError, InvalidInputError, LocalLLMError, NotFoundError
from local_llm.files import FINE_TUNE
from local_llm.identifiers import new_id, now
from local_llm.permissions import Caller
from local_llm.state import File, Job, JobCheckpoint, JobEvent, State
from training.hyperparameters import SEED
from training.job_request import JobRequest as JobRequest  # noqa: PLC0414 - others write jobs.JobRequest

LEASE_SECONDS = 60.0
MAXIMUM_ATTEMPTS = 3
# A job goes: queued, running, and succeeded, failed or cancelled; from the first two to paused and back to queued.
UNFINISHED = ("queued", "running", "paused")
# How long after a POST the same one, marked as a retry by its client, is the same job. The openai client's
# retries follow within seconds, or after its timeout of ten minutes.
RETRY_SECONDS = 600

Level = Literal["info", "warn", "error"]
Owner = Literal["trainer", "cli"]


class LeaseLostError(ConflictError):
    """The job was cancelled, or another process has claimed it: the holder must stop."""

    code = "lease_lost"


@dataclass(frozen=True)
class Lease:
    job_id: str
    token: str  # "trainer:…" or "cli:…"


class KeyReusedError(InvalidInputError):
    code = "idempotency_key_reused"


@dataclass(frozen=True)
class Receipt:
    """What tells a POST that is sent again from a new one. A POST with neither mark is always a new job."""

    request_sha256: str  # of the body
    idempotency_key: str | None = None
    is_retry: bool = False  # the client says that it has sent the same before


def check_request(state: State, caller: Caller, request: JobRequest) -> None:
    """Checks what create_job() checks, and creates nothing.

    Raises: InvalidInputError naming the field.
    """
    with state.reading() as session:
        _refuse_request(session, caller, request)


def find_earlier(state: State, caller: Caller, receipt: Receipt) -> Job | None:
    """The job that an earlier sending of the same request made.

    Raises: KeyReusedError if its key came with another body before.
    """
    with state.reading() as session:
        return _earlier(session, caller, receipt)


def create_job(state: State, caller: Caller, request: JobRequest, receipt: Receipt | None = None) -> Job:
    """Checks the request and queues it; the same request sent again gives the job that it gave before.

    Raises: InvalidInputError naming the field; KeyReusedError.
    """
    with state.session() as session:
        earlier = _earlier(session, caller, receipt) if receipt else None
        return earlier or _insert(session, caller, request, receipt)


def create_claimed_job(state: State, caller: Caller, request: JobRequest, owner: Owner) -> Lease:
    """Creates a job that its creator runs: it is never seen in the queue, where a trainer could take it.

    Raises: InvalidInputError naming the field.
    """
    with state.session() as session:
        return _take(session, _insert(session, caller, request), owner, LEASE_SECONDS)


def get_job(state: State, job_id: str, caller: Caller) -> Job:
    """Raises: NotFoundError, also for a job of another project."""
    with state.reading() as session:
        return _get(session, job_id, caller)


def list_jobs(
    state: State,
    caller: Caller,
    *,
    after: str | None = None,
    limit: int = 20,
    metadata: Mapping[str, str] | None = None,
) -> tuple[list[Job], bool]:
    """Jobs of the caller's project, the newest first, and whether there are more.

    `after` is the id of the last job already seen. `metadata` keeps the jobs that have all of these pairs; an
    empty one keeps the jobs that have no metadata. Raises: NotFoundError if `after` is no job.
    """
    with state.reading() as session:
        query = select(Job).where(Job.project_id == caller.project_id)
        if metadata is not None:
            query = query.where(*_has_metadata(metadata))
        if after is not None:
            last = _get(session, after, caller, "after")
            older = or_(Job.created_at < last.created_at, (Job.created_at == last.created_at) & (Job.id < last.id))
            query = query.where(older)
        query = query.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1)
        rows = list(session.scalars(query))
    return rows[:limit], len(rows) > limit


def cancel_job(state: State, job_id: str, caller: Caller) -> Job:
    """Ends a job that is not finished; whoever works on it loses its lease.

    Raises: NotFoundError, ConflictError.
    """
    with state.session() as session:
        job = _get(session, job_id, caller)
        _refuse_unless(job, UNFINISHED, "cancelled")
        _close(job, "cancelled")
        _add_event(session, job_id, "Fine-tuning job cancelled")
    return job


def pause_job(state: State, job_id: str, caller: Caller) -> Job:
    """Sets a job aside until it is resumed; whoever works on it loses its lease, after a last step checkpoint.

    Raises: NotFoundError, ConflictError.
    """
    with state.session() as session:
        job = _get(session, job_id, caller)
        _refuse_unless(job, ("queued", "running"), "paused")
        if job.status == "running":
            _forgive_attempt(job)
        _leave(job, "paused")
        _add_event(session, job_id, "Fine-tuning job paused; once resumed it goes on from its last checkpoint")
    return job


def resume_job(state: State, job_id: str, caller: Caller) -> Job:
    """Puts a paused job back into the queue. Raises: NotFoundError, ConflictError."""
    with state.session() as session:
        job = _get(session, job_id, caller)
        _refuse_unless(job, ("paused",), "resumed")
        job.status = "queued"
        _add_event(session, job_id, "Fine-tuning job resumed")
    return job


def list_events(
    state: State, job_id: str, caller: Caller, *, after: str | None = None, limit: int = 20
) -> tuple[list[JobEvent], bool]:
    """Events of a job, the newest first, and whether there are more. Raises: NotFoundError."""
    with state.reading() as session:
        _get(session, job_id, caller)
        query = select(JobEvent).where(JobEvent.job_id == job_id)
        if after is not None:
            last = session.scalars(query.where(JobEvent.id == after)).first()
            if last is None:
                raise NotFoundError(f"job {job_id} has no event {after}", param="after")
            query = query.where(JobEvent.sequence < last.sequence)
        rows = list(session.scalars(query.order_by(JobEvent.sequence.desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def list_checkpoints(
    state: State, job_id: str, caller: Caller, *, after: str | None = None, limit: int = 10
) -> tuple[list[JobCheckpoint], bool]:
    """Checkpoints of a job, the newest first, and whether there are more. Raises: NotFoundError."""
    with state.reading() as session:
        _get(session, job_id, caller)
        query = select(JobCheckpoint).where(JobCheckpoint.job_id == job_id)
        if after is not None:
            last = session.scalars(query.where(JobCheckpoint.id == after)).first()
            if last is None:
                raise NotFoundError(f"job {job_id} has no checkpoint {after}", param="after")
            query = query.where(JobCheckpoint.step_number < last.step_number)
        rows = list(session.scalars(query.order_by(JobCheckpoint.step_number.desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def checkpoints_of(state: State, job_id: str) -> list[JobCheckpoint]:
    """All checkpoints of a job, the oldest first."""
    with state.reading() as session:
        query = select(JobCheckpoint).where(JobCheckpoint.job_id == job_id)
        return list(session.scalars(query.order_by(JobCheckpoint.step_number)))


def claim_next(state: State, owner: Owner = "trainer", *, lease_seconds: float = LEASE_SECONDS) -> Lease | None:
    """Claims the oldest job that waits, or whose holder let its lease run out; None if there is none.

    A job that was begun too often fails instead.
    """
    with state.session() as session:
        expired = (Job.status == "running") & (Job.lease_until < time.time())
        query = select(Job).where(or_(Job.status == "queued", expired)).order_by(Job.created_at, Job.id)
        for job in session.scalars(query):
            if job.attempts < MAXIMUM_ATTEMPTS:
                return _take(session, job, owner, lease_seconds)
            _fail(session, job, _died_too_often())
    return None


def claim(
    state: State, job_id: str, caller: Caller, owner: Owner, *, lease_seconds: float = LEASE_SECONDS
) -> Lease:
    """Claims one job that waits, is paused, or whose holder let its lease run out.

    Raises: NotFoundError; ConflictError if it is finished or held.
    """
    with state.session() as session:
        job = _get(session, job_id, caller)
        if job.status not in UNFINISHED:
            raise ConflictError(f"job {job_id} has {job.status}; there is nothing to go on with", param="id")
        if job.status == "running" and job.lease_until is not None and job.lease_until >= time.time():
            seconds = math.ceil(job.lease_until - time.time())
            raise ConflictError(
                f"job {job_id} is held by another process",
                hint=f"pause it first; if that process is dead, try again in {seconds} s",
                param="id",
            )
        return _take(session, job, owner, lease_seconds)


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
        _add_event(session, lease.job_id, message, level=level, data=data)


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
        row.model_name, row.metrics, row.created_at = model_name, _finite(metrics), now()
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
        _close(job, "succeeded")
        _add_event(session, job.id, f"New fine-tuned model created: {fine_tuned_model}")
        _add_event(session, job.id, "The job has successfully completed")


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
    """Queues again what a dead `owner` was at: not the jobs' doing, so it does not count against them.

    Only for the one process that holds the owner's lock.
    """
    with state.session() as session:
        query = select(Job).where(Job.status == "running", Job.lease.startswith(f"{owner}:"))
        jobs = list(session.scalars(query))
        for job in jobs:
            reason = "The training process was interrupted; the job goes on from its last checkpoint"
            _requeue(session, job, reason, counts=False)
    return [job.id for job in jobs]


def _insert(session: Session, caller: Caller, request: JobRequest, receipt: Receipt | None = None) -> Job:
    _refuse_request(session, caller, request)
    method = request.method_json()
    job = Job(
        id=new_id("ftjob-"),
        project_id=caller.project_id,
        model=request.model,
        training_file=request.training_file,
        validation_file=request.validation_file,
        suffix=request.suffix,
        seed=secrets.randbelow(SEED[1]) if request.seed is None else request.seed,
        method=method,
        hyperparameters=method[request.method]["hyperparameters"],
        job_metadata=dict(request.metadata),
        status="queued",
        error=None,
        fine_tuned_model=None,
        trained_tokens=None,
        created_at=now(),
        finished_at=None,
        result_files=[],
        output_name=None,
        micro_batch_tokens=None,
        idempotency_key=receipt.idempotency_key if receipt else None,
        request_sha256=receipt.request_sha256 if receipt else None,
        lease=None,
        lease_until=None,
        attempts=0,
    )
    session.add(job)
    session.flush()
    _add_event(session, job.id, f"Created fine-tuning job: {job.id}")
    return job


def _earlier(session: Session, caller: Caller, receipt: Receipt) -> Job | None:
    mine = select(Job).where(Job.project_id == caller.project_id)
    if receipt.idempotency_key is not None:
        job = session.scalars(mine.where(Job.idempotency_key == receipt.idempotency_key)).first()
        if job is not None and job.request_sha256 != receipt.request_sha256:
            raise KeyReusedError(
                f"the idempotency key {receipt.idempotency_key!r} came with another body before, and made {job.id}",
                hint="send a new key with a new request",
                param="Idempotency-Key",
            )
        return job
    if not receipt.is_retry:
        return None
    same = mine.where(
        Job.request_sha256 == receipt.request_sha256,
        Job.idempotency_key.is_(None),
        Job.created_at >= now() - RETRY_SECONDS,
    )
    return session.scalars(same.order_by(Job.created_at.desc(), Job.id.desc())).first()


def _has_metadata(pairs: Mapping[str, str]) -> list[Any]:
    """Conditions on a job's metadata: all of `pairs`; for none, no metadata at all."""
    stored = func.json_each(Job.job_metadata).table_valued("key", "value")
    if not pairs:
        return [~exists(select(stored.c.key))]
    return [
        exists(select(stored.c.key).where(stored.c.key == key, stored.c.value == value))
        for key, value in pairs.items()
    ]


def _refuse_request(session: Session, caller: Caller, request: JobRequest) -> None:
    """What only the database knows of a request; the rest was checked when it was made."""
    for param in ("training_file", "validation_file"):
        _refuse_file(session, getattr(request, param), caller, param)
    if request.early_stopping_epochs and request.validation_file is None:
        raise InvalidInputError(
            "lora.early_stopping_epochs needs a validation_file: the loss on it tells when to stop",
            param="lora.early_stopping_epochs",
        )


def _refuse_file(session: Session, file_id: str | None, caller: Caller, param: str) -> None:
    if file_id is None:
        return
    row = session.get(File, file_id)
    if row is None or row.project_id != caller.project_id:
        raise InvalidInputError(f"invalid {param}: {file_id:.80} does not exist", param=param)
    if row.purpose != FINE_TUNE:
        raise InvalidInputError(
            f"invalid {param}: the purpose of {file_id} is {row.purpose!r}; expected {FINE_TUNE!r}", param=param
        )


def _get(session: Session, job_id: str, caller: Caller, param: str = "fine_tuning_job_id") -> Job:
    job = session.get(Job, job_id)
    if job is None or job.project_id != caller.project_id:
        raise NotFoundError(f"Could not find fine tune: {job_id}", param=param)
    return job


def _refuse_unless(job: Job, statuses: tuple[str, ...], action: str) -> None:
    if job.status not in statuses:
        raise ConflictError(
            f"job {job.id} is {job.status}; only one that is {' or '.join(statuses)} can be {action}",
            param="fine_tuning_job_id",
        )


def _held(session: Session, lease: Lease) -> Job:
    """The job, if the lease still holds it. A lease that ran out but that nobody took is still good."""
    job = session.get(Job, lease.job_id)
    if job is None or job.status != "running" or job.lease != lease.token:
        found = "gone" if job is None else job.status
        raise LeaseLostError(f"job {lease.job_id} is {found} and no longer held by this process")
    return job


def _take(session: Session, job: Job, owner: Owner, lease_seconds: float) -> Lease:
    lease = Lease(job.id, new_id(f"{owner}:"))
    job.status = "running"
    job.lease = lease.token
    job.lease_until = time.time() + lease_seconds
    job.attempts += 1
    _add_event(session, job.id, "Fine-tuning job started")
    return lease


def _requeue(session: Session, job: Job, reason: str, *, counts: bool) -> None:
    if not counts:
        _forgive_attempt(job)
    elif job.attempts >= MAXIMUM_ATTEMPTS:
        _fail(session, job, _died_too_often())
        return
    _leave(job, "queued")
    _add_event(session, job.id, reason, level="warn")


def _fail(session: Session, job: Job, error: LocalLLMError) -> None:
    _close(job, "failed")
    job.error = {"code": error.code or error.type, "message": error.message, "param": error.param}
    session.execute(delete(JobCheckpoint).where(JobCheckpoint.job_id == job.id))
    _add_event(session, job.id, f"The job failed: {error.message}", level="error")


def _close(job: Job, status: str) -> None:
    _leave(job, status)
    job.finished_at = now()


def _leave(job: Job, status: str) -> None:
    job.status = status
    job.lease = job.lease_until = None


def _forgive_attempt(job: Job) -> None:
    """Counts the present attempt no more; note_progress() may have forgiven it before."""
    job.attempts = max(0, job.attempts - 1)


def _died_too_often() -> LocalLLMError:
    return LocalLLMError(
        f"the training process died {MAXIMUM_ATTEMPTS} times without progress in between; its log tells why"
    )


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """A loss that is no number any more is null: JSON has no NaN."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _add_event(
    session: Session, job_id: str, message: str, *, level: Level = "info", data: dict[str, Any] | None = None
) -> None:
    session.add(
        JobEvent(
            id=new_id("ftevent-"),
            job_id=job_id,
            created_at=now(),
            level=level,
            type="message" if data is None else "metrics",
            message=message,
            data=_finite(data or {}),
        )
    )
