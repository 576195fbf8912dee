"""What the gateway's routes work with, opened once and handed in."""

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request

from index.client import AsyncIndexClient
from local_llm.adapters import AdapterRegistry
from local_llm.audit import Audit
from local_llm.declared_profiles import DeclaredProfiles
from local_llm.files import FileStore
from local_llm.keys import KeyStore
from local_llm.models import Manifest, ModelStore
from local_llm.permissions import Caller
from local_llm.profiles import ProfileStore
from local_llm.projects import ProjectStore
from local_llm.retention import Retention
from local_llm.settings import Settings
from local_llm.state import State, open_state
from local_llm.trailing import TrailingWriter
from local_llm.usage import Usage
from serving.access import Access
from serving.admission import Admission
from serving.answering.targets import Targets
from serving.chats.keeping import ChatKeeper
from serving.engine_pool import Engine, open_engine
from serving.limits import Limits
from serving.prompt_tokens import PromptTokens
from serving.readiness import Readiness
from serving.responses.store import ResponseStore
from serving.telemetry.observer import Observer
from serving.telemetry.siblings import Siblings, Snapshot

log = logging.getLogger("local_llm.gateway")

# When a key was last used is noted so often at most.
USED_SECONDS = 60


@dataclass
class Services:
    settings: Settings
    state: State
    base: Manifest  # of the model that the engine serves
    keys: KeyStore
    profiles: ProfileStore
    declared: DeclaredProfiles
    adapters: AdapterRegistry
    targets: Targets
    files: FileStore
    engine: Engine
    prompt_tokens: PromptTokens
    index: AsyncIndexClient
    readiness: Readiness
    admission: Admission
    limits: Limits
    observer: Observer
    siblings: Siblings
    access: Access
    audit: Audit
    usage: Usage
    projects: ProjectStore
    writer: TrailingWriter
    responses: ResponseStore
    chats: ChatKeeper
    organization: bytes  # for a header
    draining: bool = False  # what runs comes to its end; soon nobody is let in

    async def close(self) -> None:
        self.siblings.close()
        await asyncio.to_thread(self.observer.close)  # it may have to wait for who collects traces
        self.writer.close()
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
    responses = ResponseStore(state, settings.server.response_days, settings.server.project_response_bytes)
    base = ModelStore(settings.place.models).get(settings.engine.model, "base").manifest
    keys, audit, usage = KeyStore(state), Audit(state), Usage(state)
    access, chats = Access(state, keys), ChatKeeper(state, settings.server.project_chat_bytes)
    retention = Retention(state, settings.server)
    writer = TrailingWriter(
        [
            audit.flush,
            usage.flush,
            partial(_note_used, keys, access),
            chats.write,
            retention.sweep_daily,
            responses.sweep_daily,
        ]
    )
    writer.start()
    admission, observer = Admission(settings.server), Observer(settings.telemetry)

    def snapshot() -> Snapshot:
        return observer.metrics.snapshot(running=admission.running, waiting=admission.waiting)

    profiles, engine = ProfileStore(state), open_engine(settings, adapters)
    declared = DeclaredProfiles(state, profiles, settings.profiles)
    for name, error in declared.adopt().items():
        log.warning("the profile %s of the settings cannot be used yet: %s", name, error.message)
    index = AsyncIndexClient(settings.place.socket("index"), settings.server.request_timeout_seconds)
    return Services(
        settings=settings,
        state=state,
        base=base,
        keys=keys,
        profiles=profiles,
        declared=declared,
        adapters=adapters,
        targets=Targets(state, base, profiles, declared, adapters, settings.aliases),
        files=files,
        engine=engine,
        prompt_tokens=PromptTokens(engine, base.name),
        index=index,
        readiness=Readiness(engine, index),
        admission=admission,
        limits=Limits(processes=settings.server.processes, tokens_today=usage.tokens_today),
        observer=observer,
        siblings=Siblings(settings.place, number, settings.server.processes, snapshot),
        access=access,
        audit=audit,
        usage=usage,
        projects=ProjectStore(state),
        writer=writer,
        responses=responses,
        chats=chats,
        organization=settings.organization.encode(),
    )


def _note_used(keys: KeyStore, access: Access) -> None:
    used = access.take_used(older_than=USED_SECONDS)
    if used:
        keys.note_used(used)


def services_of(request: Request) -> Services:
    return request.app.state.services


def caller_of(request: Request) -> Caller:
    """Who asks: the key's holder, or the local owner on a box where no key was ever created.

    Raises: AuthenticationError, ForbiddenError.
    """
    headers = request.headers
    given = (headers.get("authorization"), headers.get("host"), headers.get("origin"))
    authorization, host, origin = (None if value is None else value.encode("latin-1") for value in given)
    caller = services_of(request).access.caller(authorization, host=host, origin=origin)
    request.scope["caller"] = caller  # for those who look on
    return caller


def note(request: Request, caller: Caller, action: str, object_id: str | None, **detail: Any) -> None:
    """Into the audit log: what a request changed. Call it once it is done."""
    services_of(request).audit.note(caller, action, object_id, detail)
