"""What the gateway's routes work with, opened once and handed in."""

import asyncio
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from starlette.requests import Request

from index.client import AsyncIndexClient
from local_llm.adapters import AdapterRegistry
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
from serving.limits import Limits
from serving.preflight import is_loopback
from serving.telemetry.observer import Observer
from serving.telemetry.siblings import Siblings, Snapshot


@dataclass
class Services:
    settings: Settings
    state: State
    base: Manifest  # of the model that the engine serves
    keys: KeyStore
    profiles: ProfileStore
    adapters: AdapterRegistry
    files: FileStore
    engine: EngineClient
    index: AsyncIndexClient
    admission: Admission
    limits: Limits
    observer: Observer
    siblings: Siblings
    organization: bytes  # for a header
    draining: bool = False  # what runs comes to its end; soon nobody is let in

    async def close(self) -> None:
        self.siblings.close()
        await asyncio.to_thread(self.observer.close)  # it may have to wait for who collects traces
        await self.engine.close()
        await self.index.close()
        self.state.close()


def open_services(settings: Settings, number: int = 0) -> Services:
    """Opens everything. Needs a running event loop for the two clients. `number` is the gateway process's."""
    state = open_state(settings.place)
    files = FileStore(settings, state)
    files.remove_abandoned()
    adapters = AdapterRegistry(settings, state)
    adapters.remove_abandoned()
    base = ModelStore(settings.place.models).get(settings.engine.model, "base").manifest
    admission, observer = Admission(settings.server), Observer(settings.telemetry)

    def snapshot() -> Snapshot:
        return observer.metrics.snapshot(running=admission.running, waiting=admission.waiting)

    return Services(
        settings=settings,
        state=state,
        base=base,
        keys=KeyStore(state),
        profiles=ProfileStore(state),
        adapters=adapters,
        files=files,
        engine=EngineClient(
            settings.place.socket("engine"),
            settings.server.request_timeout_seconds,
            partial(training_job, settings),
        ),
        index=AsyncIndexClient(settings.place.socket("index"), settings.server.request_timeout_seconds),
        admission=admission,
        limits=Limits(processes=settings.server.processes),
        observer=observer,
        organization=settings.organization.encode(),
        siblings=Siblings(settings.place, number, settings.server.processes, snapshot),
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
        refuse_strange_pages(request)
        caller = local_admin(services.state.local_project_id())
    elif scheme.lower() != "bearer" or not secret:
        raise AuthenticationError("You didn't provide an API key.", hint="send it as: Authorization: Bearer KEY")
    else:
        caller = services.keys.authenticate(secret.strip())
    request.scope["caller"] = caller  # for those who look on
    return caller


def refuse_strange_pages(request: Request) -> None:
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
