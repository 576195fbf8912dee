"""The index server: the one process that holds the index, and answers the others on a Unix socket.

Whoever can open the socket is trusted to say who calls: it lies in a folder of its owner's alone.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from index.access import index_lock
from index.interface import Report
from index.service import IndexService
from index.wire import (
    FILE_METHODS,
    LONG_METHODS,
    METHODS,
    Json,
    answer_to_bytes,
    arguments_from_json,
    caller_from_json,
    error_to_json,
)
from local_llm.descriptors import allow_descriptors
from local_llm.errors import LocalLLMError
from local_llm.settings import Settings
from local_llm.state import open_state

SHUTDOWN_SECONDS = 10
# An open collection has about six, more where many read it at once, and it stays open.
DESCRIPTORS = 1 << 16

Method = Callable[..., Any]


def run(settings: Settings) -> None:
    """Serves until told to stop by SIGTERM or SIGINT.

    Raises: LockedError naming the holder if another process has the index.
    """
    signal.signal(signal.SIGTERM, _exit)
    allow_descriptors(DESCRIPTORS)
    place = settings.place.ensure()
    with index_lock(place):
        state = open_state(place)
        service = IndexService(settings, state)
        try:
            # In the background: the socket answers at once, and searches wait for the encoder by themselves.
            threading.Thread(target=_warm_up, args=(service,), name="encoder", daemon=True).start()
            # Listening before a collection is opened: whoever deletes a file and reaches nobody here may rely on
            # its row being gone by then.
            with listening(place.socket("index")) as listener:
                service.start_upkeep()
                make_server(service).run(sockets=[listener])
        finally:
            service.close()
            state.close()


def make_server(service: IndexService) -> uvicorn.Server:
    """A server that ends on SIGTERM and SIGINT; it ends on `should_exit` where it cannot hear signals."""
    config = uvicorn.Config(
        application(service),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        lifespan="off",
    )
    return uvicorn.Server(config)


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A Unix socket at `path`, its owner's alone. Call it under the index's lock: what lies there is stale."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    try:
        listener.listen(128)
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def application(service: IndexService) -> Starlette:
    """POST /METHOD for each method of the index, with its arguments as a JSON object; GET /ready."""
    endpoints = _Endpoints(service)
    calls = [Route(f"/{method}", endpoints.call, methods=["POST"]) for method in METHODS]
    calls += [Route(f"/{method}", endpoints.call_long, methods=["POST"]) for method in LONG_METHODS]
    calls += [Route(f"/files/{method}", endpoints.call_files, methods=["POST"]) for method in FILE_METHODS]
    return Starlette(
        routes=[
            Route("/ready", endpoints.ready),
            *calls,
        ],
        exception_handlers={LocalLLMError: _answer_error},
    )


class _Endpoints:
    def __init__(self, service: IndexService):
        self._service = service

    async def ready(self, _request: Request) -> Response:
        """200 once the encoder is loaded, 503 until then."""
        ready = self._service.ready
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    async def call(self, request: Request) -> Response:
        return await self._answer(getattr(self._service, request.url.path[1:]), request)

    async def call_files(self, request: Request) -> Response:
        return await self._answer(getattr(self._service.files, request.url.path.rpartition("/")[2]), request)

    async def _answer(self, method: Method, request: Request) -> Response:
        arguments = await request.json()
        caller = caller_from_json(arguments.pop("caller"))
        result = await run_in_threadpool(method, caller, **arguments_from_json(arguments))
        return Response(answer_to_bytes(result), media_type="application/json")

    async def call_long(self, request: Request) -> Response:
        """A line of JSON for each step of progress; the last one is the result or the error."""
        method = getattr(self._service, request.url.path[1:])
        lines = _with_progress(method, await request.json())
        return StreamingResponse(lines, media_type="application/x-ndjson")


async def _with_progress(method: Method, arguments: Json) -> AsyncIterator[bytes]:
    """Runs the method in a thread. It ends with its next report once nobody listens any more."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[Json] = asyncio.Queue()
    abandoned = threading.Event()

    def tell(line: Json) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, line)

    def report(done: int, total: int, note: str) -> None:
        if abandoned.is_set():
            raise _Abandoned
        tell({"done": done, "total": total, "note": note})

    work = loop.run_in_executor(None, _run, method, arguments, report, tell)
    try:
        while True:
            line = await lines.get()
            yield answer_to_bytes(line) + b"\n"
            if "done" not in line:
                break
        await work
    finally:
        abandoned.set()


class _Abandoned(Exception):  # noqa: N818 (a signal to a thread, never told to anybody)
    pass


def _run(method: Method, arguments: Json, report: Report, tell: Callable[[Json], None]) -> None:
    try:
        caller = caller_from_json(arguments.pop("caller"))
        result = method(caller, **arguments_from_json(arguments), report=report)
        tell({"result": result})
    except _Abandoned:
        return
    except LocalLLMError as error:
        tell({"error": error_to_json(error)})
    except Exception as error:  # the client waits for a last line, whatever happened
        tell({"error": error_to_json(LocalLLMError(f"the index failed: {type(error).__name__}: {error}"))})
        raise


async def _answer_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LocalLLMError)
    return JSONResponse({"error": error_to_json(error)}, status_code=error.status)


def _warm_up(service: IndexService) -> None:
    try:
        service.encoder()
    except LocalLLMError as error:
        print(f"the encoder cannot be loaded: {error.message}", file=sys.stderr)  # noqa: T201


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)
