"""The real gateway on a real socket, in a thread of its own: what clients do to connections can be seen."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from local_llm.models import ModelStore
from local_llm.settings import Settings, load_settings
from serving.gateway import Gateway, create_app
from serving.http_server import GatewayServer, make_server
from serving.services import Services

from ..handmade_adapters import write_base
from .conftest import BASE

CHAT = {"model": BASE, "messages": [{"role": "user", "content": "Hello"}]}
DEADLINE_SECONDS = 20


@dataclass
class Running:
    settings: Settings
    app: Gateway
    server: GatewayServer
    loop: asyncio.AbstractEventLoop
    address: tuple[str, int]

    @property
    def url(self) -> str:
        scheme = "https" if self.settings.server.tls_certificate else "http"
        return f"{scheme}://{self.address[0]}:{self.address[1]}"

    @property
    def services(self) -> Services:
        return self.app.services()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=DEADLINE_SECONDS)

    def tasks(self) -> int:
        """How many run on the gateway's loop."""

        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result()


@contextmanager
def running(folder: Path, **changed: Any) -> Iterator[Running]:
    """`changed` are settings, with two underscores for a dot."""
    settings = load_settings(
        environment={"LOCAL_LLM_HOME": str(folder / "home")},
        overrides={name.replace("__", "."): value for name, value in changed.items()},
    )
    store = ModelStore(settings.place.ensure().models)
    store.import_folder(write_base(folder / "model"), name=BASE)
    with serving(settings) as made:
        yield made


@contextmanager
def serving(settings: Settings, number: int = 0) -> Iterator[Running]:
    """On a home that is there. `number` among server.processes."""
    app = create_app(settings, number)
    server = make_server(app, app.services, settings.server)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([listener])

    def run() -> None:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    address = listener.getsockname()
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield Running(settings, app, server, loops[0], address)
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def engine_at(path: Path, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Iterator[None]:
    """Serves on the Unix socket `path`. A client that leaves cancels its answer, as vLLM's does."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)

    async def start() -> None:
        await runner.setup()
        await web.UnixSite(runner, str(path), backlog=2048).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


def wait_for(holds: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> float:
    """Seconds until it held."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, "it never came to hold"
        time.sleep(0.005)
    return time.monotonic() - began
