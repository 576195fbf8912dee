"""/v1/fine_tuning/jobs: queued here, taken by the trainer."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from local_llm.errors import ModelNotFoundError
from local_llm.profiles import BASE
from local_llm.state import Job, JobEvent
from serving.bodies import read_json_object
from serving.services import Services, caller_of, services_of
from training import jobs

router = APIRouter()

Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("/v1/fine_tuning/jobs")
async def create_job(request: Request) -> dict[str, Any]:
    services = services_of(request)
    caller = caller_of(request)
    body = await read_json_object(request, services.settings.server.max_body_bytes)
    model = _base_model(services, body.get("model"))
    job = jobs.create_job(services.state, caller, jobs.request_from_api(body, model=model))
    return _job_as_json(services, job)


@router.get("/v1/fine_tuning/jobs")
def list_jobs(request: Request, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
    services = services_of(request)
    rows, has_more = jobs.list_jobs(services.state, caller_of(request), after=after, limit=limit)
    return {"object": "list", "data": [_job_as_json(services, row) for row in rows], "has_more": has_more}


@router.get("/v1/fine_tuning/jobs/{job_id}")
def retrieve_job(request: Request, job_id: str) -> dict[str, Any]:
    services = services_of(request)
    return _job_as_json(services, jobs.get_job(services.state, job_id, caller_of(request)))


@router.post("/v1/fine_tuning/jobs/{job_id}/cancel")
def cancel_job(request: Request, job_id: str) -> dict[str, Any]:
    services = services_of(request)
    return _job_as_json(services, jobs.cancel_job(services.state, job_id, caller_of(request)))


@router.get("/v1/fine_tuning/jobs/{job_id}/events")
def list_events(request: Request, job_id: str, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
    services = services_of(request)
    rows, has_more = jobs.list_events(services.state, job_id, caller_of(request), after=after, limit=limit)
    return {"object": "list", "data": [_event_as_json(row) for row in rows], "has_more": has_more}


def _base_model(services: Services, name: object) -> str:
    """The base model that a name stands for: the one the engine serves, or a hosted alias of it."""
    resolved = services.settings.aliases.get(name, name) if isinstance(name, str) else name
    if resolved in (BASE, services.base.name):
        return services.base.name
    raise ModelNotFoundError(
        f"The model `{name}` does not exist, or cannot be fine-tuned here.",
        hint=f"the engine serves {services.base.name}",
        param="model",
    )


def _job_as_json(services: Services, job: Job) -> dict[str, Any]:
    return FineTuningJob.model_validate(
        {
            "id": job.id,
            "object": "fine_tuning.job",
            "created_at": job.created_at,
            "finished_at": job.finished_at,
            "status": job.status,
            "error": job.error,
            "model": job.model,
            "fine_tuned_model": job.fine_tuned_model,
            "organization_id": services.settings.organization,
            "hyperparameters": job.hyperparameters,
            "method": job.method,
            "metadata": job.job_metadata,
            "seed": job.seed,
            "trained_tokens": job.trained_tokens,
            "training_file": job.training_file,
            "validation_file": job.validation_file,
            "result_files": [],
            "user_provided_suffix": job.suffix,
        }
    ).model_dump()


def _event_as_json(event: JobEvent) -> dict[str, Any]:
    return FineTuningJobEvent.model_validate(
        {
            "id": event.id,
            "object": "fine_tuning.job.event",
            "created_at": event.created_at,
            "level": event.level,
            "message": event.message,
            "type": event.type,
            "data": event.data,
        }
    ).model_dump()
