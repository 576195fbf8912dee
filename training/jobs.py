"""Fine-tuning jobs as rows: created, claimed under a lease, reported on, finished. No model library here.

A lease is a fence. Whoever claims a job writes a fresh token into its row and renews it while at work; every
write names the token and is refused once the row holds another, so a process that was thought dead cannot
overwrite what its successor does. Statuses and wording of events are the hosted API's.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from local_llm.errors import ConflictError, InvalidInputError, LocalLLMError, NotFoundError
from local_llm.files import FINE_TUNE
from local_llm.identifiers import is_suffix, new_id, now
from local_llm.permissions import Caller
from local_llm.settings import Quantization
from local_llm.state import File, Job, JobEvent, State
from training.hyperparameters import SEED, Hyperparameters, refuse_seed

LEASE_SECONDS = 60.0
MAXIMUM_ATTEMPTS = 3
FINAL = ("succeeded", "failed", "cancelled")

# Limits of the hosted API.
METADATA_PAIRS, METADATA_KEY_LENGTH, METADATA_VALUE_LENGTH = 16, 64, 512

KIND_NAMES = {str: "a text", int: "a whole number", dict: "an object"}

Level = Literal["info", "warn", "error"]
Owner = Literal["trainer", "cli"]


class LeaseLostError(ConflictError):
    """The job was cancelled, or another process has claimed it: the holder must stop."""

    code = "lease_lost"


@dataclass(frozen=True)
class Lease:
    job_id: str
    token: str  # "trainer:…" or "cli:…"


@dataclass(frozen=True)
class JobRequest:
    """What a client asks for. `model` is the name of a base model in the store, aliases resolved."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str | None = None
    seed: int | None = None
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    method: str = "supervised"
    metadata: Mapping[str, str] = field(default_factory=dict)
    # Ours, beyond the hosted API's: None takes training.rank and training.quantization.
    rank: int | None = None
    quantization: Quantization | None = None


def request_from_api(body: Mapping[str, Any], *, model: str) -> JobRequest:
    """The request in the body of POST /v1/fine_tuning/jobs. `model`: the body's, aliases resolved.

    Raises: InvalidInputError naming the field.
    """
    method = _optional(body, "method", dict) or {"type": "supervised"}
    kind = _optional(method, "type", str) or ""
    asked = _optional(_optional(method, kind, dict) or {}, "hyperparameters", dict)
    return JobRequest(
        model=model,
        training_file=_optional(body, "training_file", str) or "",
        validation_file=_optional(body, "validation_file", str),
        suffix=_optional(body, "suffix", str),
        seed=_optional(body, "seed", int),
        hyperparameters=Hyperparameters.from_json(asked or _optional(body, "hyperparameters", dict) or {}),
        method=kind,
        metadata=_optional(body, "metadata", dict) or {},
    )


def create_job(state: State, caller: Caller, request: JobRequest) -> Job:
    """Checks the request and queues it.

    Raises: InvalidInputError naming the field.
    """
    with state.session() as session:
        return _insert(session, caller, request)


def create_claimed_job(state: State, caller: Caller, request: JobRequest, owner: Owner) -> Lease:
    """Creates a job that its creator runs: it is never seen in the queue, where a trainer could take it.

    Raises: InvalidInputError naming the field.
    """
    with state.session() as session:
        return _take(session, _insert(session, caller, request), owner, LEASE_SECONDS)


def get_job(state: State, job_id: str, caller: Caller) -> Job:
    """Raises: NotFoundError, also for a job of another project."""
    with state.session() as session:
        return _get(session, job_id, caller)


def list_jobs(state: State, caller: Caller, *, after: str | None = None, limit: int = 20) -> tuple[list[Job], bool]:
    """Jobs of the caller's project, the newest first, and whether there are more.

    `after` is the id of the last job already seen. Raises: NotFoundError if it is none.
    """
    with state.session() as session:
        query = select(Job).where(Job.project_id == caller.project_id)
        if after is not None:
            last = _get(session, after, caller)
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
        if job.status in FINAL:
            raise ConflictError(f"job {job_id} has already {job.status}; it cannot be cancelled", param="id")
        _close(job, "cancelled")
        _add_event(session, job_id, "Fine-tuning job cancelled")
    return job


def list_events(
    state: State, job_id: str, caller: Caller, *, after: str | None = None, limit: int = 20
) -> tuple[list[JobEvent], bool]:
    """Events of a job, the newest first, and whether there are more. Raises: NotFoundError."""
    with state.session() as session:
        _get(session, job_id, caller)
        query = select(JobEvent).where(JobEvent.job_id == job_id)
        if after is not None:
            last = session.scalars(query.where(JobEvent.id == after)).first()
            if last is None:
                raise NotFoundError(f"job {job_id} has no event {after}", param="after")
            query = query.where(JobEvent.sequence < last.sequence)
        rows = list(session.scalars(query.order_by(JobEvent.sequence.desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


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


def claim(state: State, job_id: str, owner: Owner, *, lease_seconds: float = LEASE_SECONDS) -> Lease:
    """Claims one queued job. Raises: ConflictError if another process was faster."""
    with state.session() as session:
        job = session.get_one(Job, job_id)
        if job.status != "queued":
            raise ConflictError(f"job {job_id} is {job.status}; expected queued")
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
    """Replaces what was asked for ("auto") by what is trained with. Raises: LeaseLostError."""
    with state.session() as session:
        _held(session, lease).hyperparameters = resolved


def set_micro_batch_tokens(state: State, lease: Lease, tokens: int) -> None:
    """What the next attempt passes through the model at once. Raises: LeaseLostError."""
    with state.session() as session:
        _held(session, lease).micro_batch_tokens = tokens


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
    """Raises: LeaseLostError."""
    with state.session() as session:
        _fail(session, _held(session, lease), error)


def put_back(state: State, lease: Lease, reason: str, *, counts: bool = True) -> None:
    """Back into the queue; an attempt that was stopped on purpose does not count. Raises: LeaseLostError."""
    with state.session() as session:
        _requeue(session, _held(session, lease), reason, counts=counts)


def put_back_all(state: State, owner: Owner) -> list[str]:
    """Queues again what a dead `owner` was at. Only for the one process that holds the owner's lock."""
    with state.session() as session:
        query = select(Job).where(Job.status == "running", Job.lease.startswith(f"{owner}:"))
        jobs = list(session.scalars(query))
        for job in jobs:
            _requeue(session, job, "The training process was interrupted; the job starts again", counts=True)
    return [job.id for job in jobs]


def _optional(body: Mapping[str, Any], name: str, kind: type) -> Any:
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        raise InvalidInputError(f"{name} is {value!r:.60}; expected {KIND_NAMES[kind]}", param=name)
    return value


def _insert(session: Session, caller: Caller, request: JobRequest) -> Job:
    _refuse_request(request)
    for param in ("training_file", "validation_file"):
        _refuse_file(session, getattr(request, param), caller, param)
    asked = request.hyperparameters.to_json()
    method: dict[str, Any] = {"type": request.method, request.method: {"hyperparameters": asked}}
    ours = {"rank": request.rank, "quantization": request.quantization}
    method["lora"] = {name: value for name, value in ours.items() if value is not None}
    job = Job(
        id=new_id("ftjob-"),
        project_id=caller.project_id,
        model=request.model,
        training_file=request.training_file,
        validation_file=request.validation_file,
        suffix=request.suffix,
        seed=secrets.randbelow(SEED[1]) if request.seed is None else request.seed,
        method=method,
        hyperparameters=asked,
        job_metadata=dict(request.metadata),
        status="queued",
        error=None,
        fine_tuned_model=None,
        trained_tokens=None,
        created_at=now(),
        finished_at=None,
        lease=None,
        lease_until=None,
        attempts=0,
    )
    session.add(job)
    session.flush()
    _add_event(session, job.id, f"Created fine-tuning job: {job.id}")
    return job


def _refuse_request(request: JobRequest) -> None:
    if request.method != "supervised":
        raise InvalidInputError(f"method {request.method!r} is not there; expected supervised", param="method.type")
    if request.suffix is not None and not is_suffix(request.suffix):
        raise InvalidInputError(
            f"suffix {request.suffix!r}: expected up to 64 letters, digits, '.', '_' and '-'", param="suffix"
        )
    if request.seed is not None:
        refuse_seed(request.seed)
    if request.rank is not None and request.rank < 1:
        raise InvalidInputError(f"rank is {request.rank}; expected at least 1", param="rank")
    _refuse_metadata(request.metadata)


def _refuse_metadata(metadata: Mapping[str, str]) -> None:
    fits = len(metadata) <= METADATA_PAIRS and all(
        isinstance(value, str) and len(key) <= METADATA_KEY_LENGTH and len(value) <= METADATA_VALUE_LENGTH
        for key, value in metadata.items()
    )
    if not fits:
        raise InvalidInputError(
            f"metadata: expected up to {METADATA_PAIRS} pairs of texts, keys of up to {METADATA_KEY_LENGTH} and "
            f"values of up to {METADATA_VALUE_LENGTH} characters",
            param="metadata",
        )


def _refuse_file(session: Session, file_id: str | None, caller: Caller, param: str) -> None:
    if file_id is None:
        return
    row = session.get(File, file_id)
    if row is None or row.project_id != caller.project_id:
        raise InvalidInputError(f"invalid {param}: {file_id} does not exist", param=param)
    if row.purpose != FINE_TUNE:
        raise InvalidInputError(
            f"invalid {param}: the purpose of {file_id} is {row.purpose!r}; expected {FINE_TUNE!r}", param=param
        )


def _get(session: Session, job_id: str, caller: Caller) -> Job:
    job = session.get(Job, job_id)
    if job is None or job.project_id != caller.project_id:
        raise NotFoundError(f"Could not find fine tune: {job_id}", param="fine_tuning_job_id")
    return job


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
    if counts and job.attempts >= MAXIMUM_ATTEMPTS:
        _fail(session, job, _died_too_often())
        return
    job.status = "queued"
    job.lease = job.lease_until = None
    job.attempts -= 0 if counts else 1
    _add_event(session, job.id, reason, level="warn")


def _fail(session: Session, job: Job, error: LocalLLMError) -> None:
    _close(job, "failed")
    job.error = {"code": error.code or error.type, "message": error.message, "param": error.param}
    _add_event(session, job.id, f"The job failed: {error.message}", level="error")


def _close(job: Job, status: str) -> None:
    job.status = status
    job.finished_at = now()
    job.lease = job.lease_until = None


def _died_too_often() -> LocalLLMError:
    return LocalLLMError(f"the training process died {MAXIMUM_ATTEMPTS} times; its log tells why")


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
            data=data or {},
        )
    )
