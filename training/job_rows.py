"""What everyone who writes a job's row shares."""

import math
from typing import Any, Literal

from sqlalchemy.orm import Session

from local_llm.errors import ConflictError, NotFoundError
from local_llm.identifiers import new_id, now
from local_llm.permissions import Caller
from local_llm.state import Job, JobEvent

# A job goes: queued, running, and succeeded, failed or cancelled; from the first two to paused and back to queued.
UNFINISHED = ("queued", "running", "paused")

Level = Literal["info", "warn", "error"]


def get_row(session: Session, job_id: str, caller: Caller, param: str = "fine_tuning_job_id") -> Job:
    job = session.get(Job, job_id)
    if job is None or job.project_id != caller.project_id:
        raise NotFoundError(f"Could not find fine tune: {job_id}", param=param)
    return job


def refuse_unless(job: Job, statuses: tuple[str, ...], action: str) -> None:
    if job.status not in statuses:
        raise ConflictError(
            f"job {job.id} is {job.status}; only one that is {' or '.join(statuses)} can be {action}",
            param="fine_tuning_job_id",
        )


def close(job: Job, status: str) -> None:
    leave(job, status)
    job.finished_at = now()


def leave(job: Job, status: str) -> None:
    job.status = status
    job.lease = job.lease_until = None


def forgive_attempt(job: Job) -> None:
    """Counts the present attempt no more; note_progress() may have forgiven it before."""
    job.attempts = max(0, job.attempts - 1)


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """A loss that is no number any more is null: JSON has no NaN."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def add_event(
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
            data=finite(data or {}),
        )
    )
