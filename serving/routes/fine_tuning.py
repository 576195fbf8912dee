"""/v1/fine_tuning/jobs: queued here, taken by the trainer."""

import asyncio
import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Annotated, Any
from weakref import WeakValueDictionary

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from local_llm.errors import InvalidInputError, ModelNotFoundError
from local_llm.models import ModelStore
from local_llm.permissions import Caller
from local_llm.profiles import BASE
from local_llm.servable import refuse_unservable_plan
from local_llm.state import Job, JobCheckpoint, JobEvent
from serving.bodies import read_json_object
from serving.engine import max_lora_rank
from serving.queries import metadata_filter
from serving.services import Services, caller_of, note, services_of
from training import jobs
from training.examples.data import MINIMUM_EXAMPLES, check_training_file
from training.job_request import JobRequest, request_from_api
from training.jobs import Receipt

router = APIRouter()

Limit = Annotated[int, Query(ge=1, le=100)]

IDEMPOTENCY_KEY_LENGTH = 255

# Checking a large file takes seconds, in which a client may lose its connection and send the request again. The
# second waits here for the first: it then finds the job that the first made.
_being_created: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()


@router.post("/v1/fine_tuning/jobs")
async def create_job(request: Request) -> dict[str, Any]:
    services = services_of(request)
    caller = caller_of(request)
    body = await read_json_object(request, services.settings.server.max_body_bytes)
    receipt = _receipt(request, body)
    lock = _being_created.setdefault((caller.project_id, receipt.request_sha256), asyncio.Lock())
    async with lock:
        job = await run_in_threadpool(_create, services, caller, body, receipt)
    note(request, caller, "fine_tuning.job.created", job.id, model=job.model, training_file=job.training_file)
    return _shown(services, caller, [job])[0]


@router.get("/v1/fine_tuning/jobs")
def list_jobs(request: Request, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
    services = services_of(request)
    caller = caller_of(request)
    rows, has_more = jobs.list_jobs(
        services.state, caller, after=after, limit=limit, metadata=metadata_filter(request)
    )
    return {"object": "list", "data": _shown(services, caller, rows), "has_more": has_more}


@router.get("/v1/fine_tuning/jobs/{job_id}")
def retrieve_job(request: Request, job_id: str) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    return _shown(services, caller, [jobs.get_job(services.state, job_id, caller)])[0]


@router.post("/v1/fine_tuning/jobs/{job_id}/cancel")
def cancel_job(request: Request, job_id: str) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    job = jobs.cancel_job(services.state, job_id, caller)
    note(request, caller, "fine_tuning.job.cancelled", job.id)
    return _shown(services, caller, [job])[0]


@router.post("/v1/fine_tuning/jobs/{job_id}/pause")
def pause_job(request: Request, job_id: str) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    job = jobs.pause_job(services.state, job_id, caller)
    note(request, caller, "fine_tuning.job.paused", job.id)
    return _shown(services, caller, [job])[0]


@router.post("/v1/fine_tuning/jobs/{job_id}/resume")
def resume_job(request: Request, job_id: str) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    job = jobs.resume_job(services.state, job_id, caller)
    note(request, caller, "fine_tuning.job.resumed", job.id)
    return _shown(services, caller, [job])[0]


@router.get("/v1/fine_tuning/jobs/{job_id}/events")
def list_events(request: Request, job_id: str, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    rows, has_more = jobs.list_events(services.state, job_id, caller, after=after, limit=limit)
    hidden = services.adapters.hidden(caller, [job_id])
    return {"object": "list", "data": [_event_as_json(row, hidden) for row in rows], "has_more": has_more}


@router.get("/v1/fine_tuning/jobs/{job_id}/checkpoints")
def list_checkpoints(request: Request, job_id: str, after: str | None = None, limit: Limit = 10) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    hidden = services.adapters.hidden(caller, [job_id])
    rows, has_more = jobs.list_checkpoints(services.state, job_id, caller, after=after, limit=limit, hidden=hidden)
    return {
        "object": "list",
        "data": [_checkpoint_as_json(row) for row in rows],
        "first_id": rows[0].id if rows else None,
        "last_id": rows[-1].id if rows else None,
        "has_more": has_more,
    }


def _create(services: Services, caller: Caller, body: dict[str, Any], receipt: Receipt) -> Job:
    earlier = jobs.find_earlier(services.state, caller, receipt)
    if earlier is not None:  # whatever has become of its files since
        return earlier
    asked = request_from_api(body, model=_base_model(services, caller, body.get("model")))
    _refuse_unservable(services, asked)
    jobs.check_request(services.state, caller, asked)
    _check_files(services, caller, asked)
    job = jobs.create_job(services.state, caller, asked, receipt)
    _tell_rank(services, asked, job.id)
    return job


def _tell_rank(services: Services, asked: JobRequest, job_id: str) -> None:
    """Not every rank that could be served is served now. Engines elsewhere do not tell theirs."""
    settings = services.settings
    served = max_lora_rank(settings, services.adapters.published(services.base.sha256))
    if asked.rank is None or asked.rank <= served or settings.engine.urls:
        return
    jobs.warn(
        services.state,
        job_id,
        f"The engine serves adapters of ranks up to {served}, and this one's is {asked.rank}: the server has to be "
        f"started again before the model can be used (engine.max_lora_rank = {asked.rank} or more spares that)",
    )


def _check_files(services: Services, caller: Caller, asked: JobRequest) -> None:
    """Reads the files, so that a job that could only fail is never made. Raises: TrainingDataError."""
    files = (
        ("training_file", asked.training_file, MINIMUM_EXAMPLES),
        ("validation_file", asked.validation_file, 1),
    )
    for param, file_id, minimum in files:
        if file_id is not None:
            row = services.files.get(file_id, caller)
            path = services.files.path(row.id)
            check_training_file(path, shown_as=row.filename, param=param, minimum=minimum, method=asked.method)


def _refuse_unservable(services: Services, asked: JobRequest) -> None:
    settings = services.settings
    base = ModelStore(settings.place.models).get(asked.model, "base")
    rank = settings.training.rank if asked.rank is None else asked.rank
    refuse_unservable_plan(base.path, rank=rank, max_rank=settings.engine.largest_lora_rank)


def _base_model(services: Services, caller: Caller, name: object) -> str:
    """The base model that a name stands for: the one the engine serves, or a hosted alias of it."""
    base = services.base.name
    if not isinstance(name, str):
        raise InvalidInputError(f"model is {name!r:.60}; expected the name of a model", param="model")
    resolved = services.settings.aliases.get(name, name)
    if resolved in (BASE, base) and caller.may_name(name, BASE, base):
        return base
    if resolved.startswith("ft:") and caller.may_name(name, resolved):
        raise InvalidInputError(
            f"{name:.160} is fine-tuned already, and training begins at a base model here",
            hint=f"give {base!r} as the model, and all examples in one file",
            param="model",
        )
    raise ModelNotFoundError(
        f"The model `{name:.160}` does not exist, or cannot be fine-tuned here.",
        hint=f"the engine serves {base}",
        param="model",
    )


def _receipt(request: Request, body: dict[str, Any]) -> Receipt:
    """Raises: InvalidInputError."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= IDEMPOTENCY_KEY_LENGTH:
        raise InvalidInputError(
            f"the Idempotency-Key has {len(key)} characters; expected 1 to {IDEMPOTENCY_KEY_LENGTH}",
            param="Idempotency-Key",
        )
    canonical = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return Receipt(
        request_sha256=hashlib.sha256(canonical.encode()).hexdigest(),
        idempotency_key=key,
        # The openai client counts here how often it has sent this request before.
        is_retry=request.headers.get("x-stainless-retry-count", "").strip("0").isdecimal(),
    )


def _shown(services: Services, caller: Caller, rows: Sequence[Job]) -> list[dict[str, Any]]:
    """Jobs belong to the project; a model made from what a caller may not see is to it as if it were not there."""
    hidden = services.adapters.hidden(caller, [row.id for row in rows])
    return [_job_as_json(services, row, hidden) for row in rows]


def _job_as_json(services: Services, job: Job, hidden: Collection[str]) -> dict[str, Any]:
    answer = FineTuningJob.model_validate(
        {
            "id": job.id,
            "object": "fine_tuning.job",
            "created_at": job.created_at,
            "finished_at": job.finished_at,
            # The API pauses jobs, but the type of its answers does not know the status.
            "status": "queued" if job.status == "paused" else job.status,
            "error": job.error,
            "model": job.model,
            "fine_tuned_model": None if job.fine_tuned_model in hidden else job.fine_tuned_model,
            "organization_id": services.settings.organization,
            "hyperparameters": job.hyperparameters,
            "method": job.method,
            "metadata": job.job_metadata,
            "seed": job.seed,
            "trained_tokens": job.trained_tokens,
            "training_file": job.training_file,
            "validation_file": job.validation_file,
            "result_files": job.result_files,
            "integrations": [],
            "user_provided_suffix": job.suffix,
        }
    ).model_dump()
    return {**answer, "status": job.status}


def _event_as_json(event: JobEvent, hidden: Collection[str]) -> dict[str, Any]:
    message = event.message
    for name in sorted(hidden, key=len, reverse=True):  # those of checkpoints begin with the finished model's
        message = message.replace(name, "one that this key may not see")
    return FineTuningJobEvent.model_validate(
        {
            "id": event.id,
            "object": "fine_tuning.job.event",
            "created_at": event.created_at,
            "level": event.level,
            "message": message,
            "type": event.type,
            "data": event.data,
        }
    ).model_dump()


def _checkpoint_as_json(row: JobCheckpoint) -> dict[str, Any]:
    return FineTuningJobCheckpoint.model_validate(
        {
            "id": row.id,
            "object": "fine_tuning.job.checkpoint",
            "created_at": row.created_at,
            "fine_tuning_job_id": row.job_id,
            "fine_tuned_model_checkpoint": row.model_name,
            "step_number": row.step_number,
            "metrics": {"step": row.step_number, **row.metrics},
        }
    ).model_dump()
