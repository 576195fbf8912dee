"""The gateway process: `python -m serving.gateway --fd N`, started by the supervisor. No torch in here."""

import argparse
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from local_llm import __version__, offline
from local_llm.settings import Settings, load_settings
from serving import error_responses
from serving.batches.worker import working
from serving.relay import PATHS, Relay
from serving.routes import (
    batches,
    chats,
    embeddings,
    files,
    fine_tuning,
    health,
    models,
    organization_keys,
    organization_projects,
    organization_usage,
    passages,
    profiles,
    responses,
    vector_stores,
)
from serving.services import open_services

DRAIN_SECONDS = 10


class Gateway:
    """Questions to models go to the relay, all else to the routes of the control side."""

    def __init__(self, control: FastAPI, relay: ASGIApp):
        self.control = control
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = scope["type"] == "http" and scope["path"] in PATHS and scope["method"] == "POST"
        await (self._relay if asks else self.control)(scope, receive, send)


def create_app(settings: Settings) -> Gateway:
    control = create_control(settings)
    return Gateway(control, Relay(lambda: control.state.services))


def create_control(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.services = open_services(settings)
        async with working(app.state.services) as app.state.batches:
            yield
        await app.state.services.close()

    app = FastAPI(title="Local LLM", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    error_responses.install(app)
    organization = (organization_projects, organization_keys, organization_usage)
    asking = (responses, chats, batches)
    ours = (profiles, passages, health)
    for routes in (embeddings, models, files, vector_stores, *asking, fine_tuning, *organization, *ours):
        app.include_router(routes.router)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serving.gateway")
    parser.add_argument("--fd", type=int, required=True, help="descriptor of the listening socket")
    parser.add_argument("--settings", type=Path)
    arguments = parser.parse_args()
    offline.apply()
    import uvicorn

    app = create_app(load_settings(arguments.settings))
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", access_log=False, timeout_graceful_shutdown=DRAIN_SECONDS
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=arguments.fd)])


if __name__ == "__main__":
    main()
