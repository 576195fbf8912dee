"""What the gateway's routes work with, opened once and handed in."""

import logging
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from starlette.requests import Request

from index.client import AsyncIndexClient
from local_llm.adapters import AdapterRegistry
from local_llm.declared_profiles import DeclaredProfiles
from local_llm.device import training_job
from local_llm.errors import AuthenticationError, ForbiddenError
from local_llm.files import FileStore
from local_llm.keys import KeyStore
from local_llm.models import Manifest, ModelStore
from local_llm.permissions import Caller, local_admin
from local_llm.profiles import ProfileStore
from local_llm.settings import Settings
from local_llm.state import State, open_state
from serving.admission import Admission
from serving.engine_client import EngineClient
from serving.preflight import is_loopback
from serving.prompt_tokens import PromptTokens

log = logging.getLogger("local_llm.gateway")


@dataclass
class Services:
    settings: Settings
    state: State
    base: Manifest  # of the model that the engine serves
    keys: KeyStore
    profiles: ProfileStore
    declared: DeclaredProfiles
    adapters: AdapterRegistry
    files: FileStore
    engine: EngineClient
    prompt_tokens: PromptTokens
    index: AsyncIndexClient
    admission: Admission

    async def close(self) -> None:
        await self.engine.close()
        await self.index.close()
        self.state.close()


def open_services(settings: Settings) -> Services:
    """Opens everything. Needs a running event loop for the two clients."""
    state = open_state(settings.place)
    files = FileStore(settings, state)
    files.remove_abandoned()
    adapters = AdapterRegistry(settings, state)
    adapters.remove_abandoned()
    base = ModelStore(settings.place.models).get(settings.engine.model, "base").manifest
    profiles = ProfileStore(state)
    declared = DeclaredProfiles(state, profiles, settings.profiles)
    for name, error in declared.adopt().items():
        log.warning("the profile %s of the settings cannot be used yet: %s", name, error.message)
    engine = EngineClient(
        settings.place.socket("engine"),
        settings.server.request_timeout_seconds,
        partial(training_job, settings),
    )
    return Services(
        settings=settings,
        state=state,
        base=base,
        keys=KeyStore(state),
        profiles=profiles,
        declared=declared,
        adapters=adapters,
        files=files,
        engine=engine,
        prompt_tokens=PromptTokens(engine, base.name),
        index=AsyncIndexClient(settings.place.socket("index"), settings.server.request_timeout_seconds),
        admission=Admission(settings.server),
    )


def services_of(request: Request) -> Services:
    return request.app.state.services


def caller_of(request: Request, services: Services | None = None) -> Caller:
    """Who asks: the key's holder, or the local admin on a box where no key was ever created.

    Raises: AuthenticationError.
    """
    services = services or services_of(request)
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if not services.keys.any_created():
        _refuse_strange_pages(request)
        return local_admin(services.state.local_project_id())
    if scheme.lower() != "bearer" or not secret:
        raise AuthenticationError("You didn't provide an API key.", hint="send it as: Authorization: Bearer KEY")
    return services.keys.authenticate(secret.strip())


def _refuse_strange_pages(request: Request) -> None:
    """Without keys whoever reaches loopback is an admin, and a page in a browser on this machine reaches it: by
    a name that it lets point here, or by posting without reading the answer. Both show in these headers.

    Raises: ForbiddenError.
    """
    origin = request.headers.get("origin")
    named = [request.url.hostname] + ([urlsplit(origin).hostname] if origin else [])
    for host in named:
        if not is_loopback(host or ""):
            raise ForbiddenError(
                f"without keys only this machine may ask, not {host!r}", hint="local-llm keys create NAME"
            )
