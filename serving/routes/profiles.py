"""/v1/profiles: ours. A profile is a served model name with a strategy behind it."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, ValidationError

from local_llm.profiles import BASE, DEFAULT_K, Profile, Strategy
from serving.bodies import read_json_object
from serving.services import caller_of, note, services_of

router = APIRouter()


class ProfileBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    strategy: Strategy
    model: str = BASE
    collection: str | None = None
    prompt: str | None = None
    k: int = DEFAULT_K
    answer_only_from_context: bool = True
    rewrite: bool | None = None
    refusal: str | None = None


@router.get("/v1/profiles")
def list_profiles(request: Request) -> dict[str, Any]:
    profiles = services_of(request).profiles.list(caller_of(request))
    return {"object": "list", "data": [_as_json(profile) for profile in profiles]}


@router.post("/v1/profiles")
async def set_profile(request: Request) -> dict[str, Any]:
    services = services_of(request)
    caller = caller_of(request)
    body = await read_json_object(request, services.settings.server.max_body_bytes)
    try:
        wanted = ProfileBody.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from None
    profile = await run_in_threadpool(services.profiles.set, caller, Profile(**wanted.model_dump()))
    note(request, caller, "profile.set", profile.name, strategy=profile.strategy, model=profile.model)
    return _as_json(profile)


@router.delete("/v1/profiles/{name}")
def remove_profile(request: Request, name: str) -> dict[str, Any]:
    caller = caller_of(request)
    services_of(request).profiles.remove(caller, name)
    note(request, caller, "profile.deleted", name)
    return {"id": name, "object": "profile.deleted", "deleted": True}


def _as_json(profile: Profile) -> dict[str, Any]:
    return {"id": profile.name, "object": "profile", **asdict(profile)}
