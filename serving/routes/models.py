"""/v1/models: the base, the adapters and the profiles that this caller may name."""

from fastapi import APIRouter, Request
from openai.types import Model

from local_llm.errors import ModelNotFoundError
from local_llm.permissions import Caller
from local_llm.profiles import BASE
from serving.services import Services, caller_of, services_of

router = APIRouter()


@router.get("/v1/models")
def list_models(request: Request) -> dict[str, object]:
    models = _models(services_of(request), caller_of(request))
    return {"object": "list", "data": [model.model_dump() for model in models]}


@router.get("/v1/models/{name:path}")
def retrieve_model(request: Request, name: str) -> dict[str, object]:
    for model in _models(services_of(request), caller_of(request)):
        if model.id == name:
            return model.model_dump()
    raise ModelNotFoundError(f"The model `{name}` does not exist or you do not have access to it.", param="model")


def _models(services: Services, caller: Caller) -> list[Model]:
    base = services.base
    found = [Model(id=base.name, created=base.imported_at, object="model", owned_by=services.settings.organization)]
    for adapter in services.adapters.list(caller):
        if adapter.base_sha256 == base.sha256:
            owner = services.settings.organization
            found.append(Model(id=adapter.name, created=adapter.created_at, object="model", owned_by=owner))
    names = {BASE, *(model.id for model in found)}
    for profile in services.profiles.list(caller):
        if profile.model not in names:  # its adapter is gone, hidden, or another base's
            continue
        found.append(Model(id=profile.name, created=base.imported_at, object="model", owned_by="profile"))
    return found
