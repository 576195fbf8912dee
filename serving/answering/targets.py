"""What a model name in a request stands for.

Looking one up takes most of a millisecond, ten times what else a request costs. So what was found is kept until
anything in the state database changes: a profile or a model that is deleted, by whatever process, is gone from the
next request on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from local_llm.adapters import AdapterRegistry
from local_llm.declared_profiles import DeclaredProfiles
from local_llm.errors import LocalLLMError, ModelNotFoundError
from local_llm.kept import KeptReads
from local_llm.models import Manifest
from local_llm.permissions import Caller
from local_llm.profiles import BASE, Profile, ProfileStore
from local_llm.state import Adapter, State


@dataclass(frozen=True)
class Target:
    """The engine's name of the model, the adapter to be loaded for it, the profile that was named."""

    model: str
    adapter: Adapter | None = None
    profile: Profile | None = None


class Targets:
    """Safe to ask from any thread."""

    def __init__(
        self,
        state: State,
        base: Manifest,
        profiles: ProfileStore,
        declared: DeclaredProfiles,
        adapters: AdapterRegistry,
        aliases: Mapping[str, str],
    ):
        self._base = base
        self._profiles = profiles
        self._declared = declared
        self._adapters = adapters
        self._aliases = aliases
        # By all that is known of a caller: whose rights were changed is another one.
        # Only names that stand for something are kept: this is not for strangers to fill.
        self._kept: KeptReads[tuple[Caller, str], Target] = KeptReads(state)

    def resolve(self, caller: Caller, name: str) -> Target:
        """A profile, the base model, a hosted alias or an `ft:` name. A profile may bear a hosted name.

        Raises: ModelNotFoundError, also for what this caller may not see.
        """
        return self._kept.get((caller, name), lambda: self._find(caller, name))

    def _find(self, caller: Caller, name: str) -> Target:
        profile = self._profiles.find(caller, name) or self._declared_one(caller, name)
        if profile is not None:
            target = self._adapter_of(caller, profile) if profile.fine_tuned else Target(self._base.name)
            return Target(target.model, target.adapter, profile)
        named, name = name, self._aliases.get(name, name)
        if name in (BASE, self._base.name) and caller.may_name(named, BASE, self._base.name):
            return Target(self._base.name)
        if name.startswith("ft:") and caller.may_name(named, name):
            return self._adapter(caller, name)
        raise ModelNotFoundError(
            f"The model `{name:.160}` does not exist or you do not have access to it.",
            hint="GET /v1/models lists what there is",
            param="model",
        )

    def _declared_one(self, caller: Caller, name: str) -> Profile | None:
        """Raises: ModelNotFoundError for a profile of the settings that cannot be made yet."""
        try:
            return self._declared.find(caller, name)
        except LocalLLMError as error:
            raise _unusable(name, error, "make it, or change the settings") from None

    def _adapter_of(self, caller: Caller, profile: Profile) -> Target:
        """Raises: ModelNotFoundError."""
        try:
            return self._adapter(caller, profile.model)
        except ModelNotFoundError as error:
            hint = "set the profile again with a model that GET /v1/models lists, or remove it"
            raise _unusable(profile.name, error, hint) from None

    def _adapter(self, caller: Caller, name: str) -> Target:
        row = self._adapters.get(name, caller)
        if row.base_sha256 != self._base.sha256:
            raise ModelNotFoundError(
                f"The model `{name}` belongs to {row.base_model}, but the engine serves {self._base.name}.",
                hint=f"start the server with engine.model = {row.base_model!r}",
                param="model",
            )
        return Target(row.name, row)


def _unusable(profile: str, error: LocalLLMError, hint: str) -> ModelNotFoundError:
    """It names the profile too: the client asked for that."""
    message = f"The profile `{profile}` cannot be used: {error.message}"
    return ModelNotFoundError(message, hint=error.hint or hint, param="model")
