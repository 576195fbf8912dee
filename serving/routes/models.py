"""/v1/models: the base, the adapters and the profiles that this caller may name."""

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from openai.types import Model, ModelDeleted

from local_llm.adapters import PREFIX
from local_llm.errors import ForbiddenError, InvalidInputError, ModelNotFoundError
from local_llm.permissions import Caller
from local_llm.profiles import BASE
from serving.services import Services, caller_of, note, services_of

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
    raise _not_found(name)


@router.delete("/v1/models/{name:path}")
async def delete_model(request: Request, name: str) -> dict[str, object]:
    """Fine-tuned models only. Nobody can name it from here on; the engine then forgets it, if it is up."""
    services, caller = services_of(request), caller_of(request)
    if not caller.administers:
        raise ForbiddenError("only a key with the role admin may delete models", param="model")
    if not caller.may_name(name):
        raise _not_found(name)
    if not name.startswith(PREFIX):
        raise await run_in_threadpool(_undeletable, services, caller, name)
    adapter = await run_in_threadpool(services.adapters.get, name, caller)
    await run_in_threadpool(services.adapters.delete, adapter)
    note(request, caller, "model.deleted", adapter.name)
    await services.engine.unload_adapter(adapter.name)
    return ModelDeleted(id=adapter.name, deleted=True, object="model").model_dump()


def _undeletable(services: Services, caller: Caller, name: str) -> InvalidInputError | ModelNotFoundError:
    """Why a model that is not fine-tuned stays."""
    if services.profiles.find(caller, name) is not None:
        return InvalidInputError(
            f"`{name}` is a profile, not a fine-tuned model",
            hint=f"DELETE /v1/profiles/{name}, or: local-llm profiles remove {name}",
            param="model",
        )
    if name in (BASE, services.base.name, *services.settings.aliases):
        return InvalidInputError(
            f"`{name}` is the base model that the engine serves; only `{PREFIX}` models can be deleted",
            hint="to serve another one, set engine.model and start the server again",
            param="model",
        )
    return _not_found(name)


def _not_found(name: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"The model `{name:.160}` does not exist or you do not have access to it.", param="model"
    )


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
    return [model for model in found if caller.may_name(model.id, *([BASE] if model.id == base.name else []))]
