"""The gateway process: `python -m serving.gateway --fd N`, started by the supervisor. No torch in here."""

import argparse
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from local_llm import __version__, offline
from local_llm.descriptors import allow_descriptors
from local_llm.settings import Settings, load_settings
from serving import api_document, error_responses
from serving.batches.worker import working
from serving.doorway import Doorway
from serving.relay import PATHS, Relay
from serving.routes import (
    batches,
    chats,
    embeddings,
    files,
    fine_tuning,
    health,
    metrics,
    models,
    organization_keys,
    organization_projects,
    organization_usage,
    passages,
    profiles,
    responses,
    vector_stores,
)
from serving.services import Services, open_services
from serving.telemetry.hours import counting


class Gateway:
    """Questions to models go to the relay, all else through the doorway to the routes of the control side."""

    def __init__(self, control: FastAPI):
        self.control = control
        self._relay: ASGIApp = Relay(self.services)
        self._doorway: ASGIApp = Doorway(control, self.services)

    def services(self) -> Services:
        """Open while the application's life lasts."""
        services: Services = self.control.state.services
        return services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = scope["type"] == "http" and scope["path"] in PATHS and scope["method"] == "POST"
        await (self._relay if asks else self._doorway)(scope, receive, send)


def create_app(settings: Settings, number: int = 0) -> Gateway:
    """`number` is this process's among settings.server.processes."""
    return Gateway(create_control(settings, number))


def create_control(settings: Settings, number: int) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.services = services = open_services(settings, number)
        await services.siblings.listen()
        async with counting(services) as app.state.hours, working(services) as app.state.batches:
            yield
        await services.close()

    app = FastAPI(title="Local LLM", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    error_responses.install(app)
    api_document.install(app)
    organization = (organization_projects, organization_keys, organization_usage)
    asking = (responses, chats, batches)
    ours = (profiles, passages, health, metrics)
    for routes in (embeddings, models, files, vector_stores, *asking, fine_tuning, *organization, *ours):
        app.include_router(routes.router)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serving.gateway")
    parser.add_argument("--fd", type=int, required=True, help="descriptor of the listening socket")
    parser.add_argument("--number", type=int, default=0, help="which of server.processes this is, from 0")
    parser.add_argument("--settings", type=Path)
    arguments = parser.parse_args()
    offline.apply()
    from serving.http_server import descriptors_for, make_server

    settings = load_settings(arguments.settings)
    allow_descriptors(descriptors_for(settings.server))
    app = create_app(settings, arguments.number)
    server = make_server(app, app.services, settings.server)
    # What was imported stays: looking through its hundred thousands of objects for garbage, again and again, would
    # hold up every stream for a tenth of a second.
    gc.collect()
    gc.freeze()
    server.run(sockets=[socket.socket(fileno=arguments.fd)])


if __name__ == "__main__":
    main()
