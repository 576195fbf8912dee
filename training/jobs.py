"""Fine-tuning jobs as their client sees them: created, listed, cancelled, paused, resumed. No model library here.

Statuses and wording of events are the hosted API's. Whoever works on a job holds a lease (training/leases.py).
"""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.files import FINE_TUNE
from local_llm.identifiers import new_ordered_id, now
from local_llm.json_pairs import has_pair, is_empty
from local_llm.permissions import Caller
from local_llm.state import File, Job, JobCheckpoint, JobEvent, State
from training.hyperparameters import SEED
from training.job_request import JobRequest
from training.job_rows import UNFINISHED, add_event, close, forgive_attempt, get_row, leave, refuse_unless
from training.leases import LEASE_SECONDS, Lease, Owner, holder, take

# How long after a POST the same one, marked as a retry by its client, is the same job. The openai client's
# retries follow within seconds, or after its timeout of ten minutes.
RETRY_SECONDS = 600


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


def warn(state: State, job_id: str, message: str) -> None:
    """Tells whoever reads the job's events."""
    with state.session() as session:
        add_event(session, job_id, message, level="warn")


def create_claimed_job(state: State, caller: Caller, request: JobRequest, owner: Owner) -> Lease:
    """Creates a job that its creator runs: it is never seen in the queue, where a trainer could take it.

    Raises: InvalidInputError naming the field.
    """
    with state.session() as session:
        return take(session, _insert(session, caller, request), holder(state, owner), LEASE_SECONDS)


def get_job(state: State, job_id: str, caller: Caller) -> Job:
    """Raises: NotFoundError, also for a job of another project."""
    with state.reading() as session:
        return get_row(session, job_id, caller)


def unfinished_jobs(state: State, caller: Caller) -> list[str]:
    """Ids of the jobs of the caller's project that are not over."""
    with state.reading() as session:
        query = select(Job.id).where(Job.project_id == caller.project_id, Job.status.in_(UNFINISHED))
        return list(session.scalars(query))


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
            last = get_row(session, after, caller, "after")
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
        job = get_row(session, job_id, caller)
        refuse_unless(job, UNFINISHED, "cancelled")
        close(job, "cancelled")
        add_event(session, job_id, "Fine-tuning job cancelled")
    return job


def pause_job(state: State, job_id: str, caller: Caller) -> Job:
    """Sets a job aside until it is resumed; whoever works on it loses its lease, after a last step checkpoint.

    Raises: NotFoundError, ConflictError.
    """
    with state.session() as session:
        job = get_row(session, job_id, caller)
        refuse_unless(job, ("queued", "running"), "paused")
        if job.status == "running":
            forgive_attempt(job)
        leave(job, "paused")
        add_event(session, job_id, "Fine-tuning job paused; once resumed it goes on from its last checkpoint")
    return job


def resume_job(state: State, job_id: str, caller: Caller) -> Job:
    """Puts a paused job back into the queue. Raises: NotFoundError, ConflictError."""
    with state.session() as session:
        job = get_row(session, job_id, caller)
        refuse_unless(job, ("paused",), "resumed")
        job.status = "queued"
        add_event(session, job_id, "Fine-tuning job resumed")
    return job


def list_events(
    state: State, job_id: str, caller: Caller, *, after: str | None = None, limit: int = 20
) -> tuple[list[JobEvent], bool]:
    """Events of a job, the newest first, and whether there are more. Raises: NotFoundError."""
    with state.reading() as session:
        get_row(session, job_id, caller)
        query = select(JobEvent).where(JobEvent.job_id == job_id)
        if after is not None:
            last = session.scalars(query.where(JobEvent.id == after)).first()
            if last is None:
                raise NotFoundError(f"job {job_id} has no event {after}", param="after")
            query = query.where(JobEvent.sequence < last.sequence)
        rows = list(session.scalars(query.order_by(JobEvent.sequence.desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def list_checkpoints(
    state: State,
    job_id: str,
    caller: Caller,
    *,
    after: str | None = None,
    limit: int = 10,
    hidden: Collection[str] = (),
) -> tuple[list[JobCheckpoint], bool]:
    """Checkpoints of a job, the newest first, and whether there are more. `hidden`: names of models that are left
    out. Raises: NotFoundError."""
    with state.reading() as session:
        get_row(session, job_id, caller)
        query = select(JobCheckpoint).where(JobCheckpoint.job_id == job_id, JobCheckpoint.model_name.not_in(hidden))
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


def _insert(session: Session, caller: Caller, request: JobRequest, receipt: Receipt | None = None) -> Job:
    _refuse_request(session, caller, request)
    method = request.method_json()
    job = Job(
        id=new_ordered_id("ftjob-"),
        project_id=caller.project_id,
        key_id=caller.key_id,
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
    add_event(session, job.id, f"Created fine-tuning job: {job.id}")
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
    if not pairs:
        return [is_empty(Job.job_metadata)]
    return [has_pair(Job.job_metadata, key, value) for key, value in pairs.items()]


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
    if row is None or row.project_id != caller.project_id or not caller.may_open(row.allow, row.key_id):
        raise InvalidInputError(f"invalid {param}: {file_id:.80} does not exist", param=param)
    if row.purpose != FINE_TUNE:
        raise InvalidInputError(
            f"invalid {param}: the purpose of {file_id} is {row.purpose!r}; expected {FINE_TUNE!r}", param=param
        )
