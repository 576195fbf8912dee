"""What a model name in a request stands for."""

from dataclasses import dataclass

from local_llm.errors import LocalLLMError, ModelNotFoundError
from local_llm.permissions import Caller
from local_llm.profiles import BASE, Profile
from local_llm.state import Adapter
from serving.services import Services


@dataclass(frozen=True)
class Target:
    """The engine's name of the model, the adapter to be loaded for it, the profile that was named."""

    model: str
    adapter: Adapter | None = None
    profile: Profile | None = None


def resolve(services: Services, caller: Caller, name: str) -> Target:
    """A profile, the base model, a hosted alias or an `ft:` name. A profile may bear a hosted name.

    Raises: ModelNotFoundError, also for what this caller may not see.
    """
    profile = services.profiles.find(caller, name) or _declared(services, caller, name)
    if profile is not None:
        target = _adapter_of(services, caller, profile) if profile.fine_tuned else Target(services.base.name)
        return Target(target.model, target.adapter, profile)
    named, name = name, services.settings.aliases.get(name, name)
    if name in (BASE, services.base.name) and caller.may_name(named, BASE, services.base.name):
        return Target(services.base.name)
    if name.startswith("ft:") and caller.may_name(named, name):
        return _adapter(services, caller, name)
    raise ModelNotFoundError(
        f"The model `{name}` does not exist or you do not have access to it.",
        hint="GET /v1/models lists what there is",
        param="model",
    )


def _declared(services: Services, caller: Caller, name: str) -> Profile | None:
    """Raises: ModelNotFoundError for a profile of the settings that cannot be made yet."""
    try:
        return services.declared.find(caller, name)
    except LocalLLMError as error:
        raise _unusable(name, error, "make it, or change the settings") from None


def _unusable(profile: str, error: LocalLLMError, hint: str) -> ModelNotFoundError:
    """It names the profile too: the client asked for that."""
    message = f"The profile `{profile}` cannot be used: {error.message}"
    return ModelNotFoundError(message, hint=error.hint or hint, param="model")


def _adapter_of(services: Services, caller: Caller, profile: Profile) -> Target:
    """Raises: ModelNotFoundError."""
    try:
        return _adapter(services, caller, profile.model)
    except ModelNotFoundError as error:
        hint = "set the profile again with a model that GET /v1/models lists, or remove it"
        raise _unusable(profile.name, error, hint) from None


def _adapter(services: Services, caller: Caller, name: str) -> Target:
    row = services.adapters.get(name, caller)
    if row.base_sha256 != services.base.sha256:
        raise ModelNotFoundError(
            f"The model `{name}` belongs to {row.base_model}, but the engine serves {services.base.name}.",
            hint=f"start the server with engine.model = {row.base_model!r}",
            param="model",
        )
    return Target(row.name, row)
