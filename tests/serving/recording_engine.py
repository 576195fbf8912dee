"""A small engine: vLLM's routes for adapters and chats, over a Unix socket or a port, with canned answers."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from .replies import LIMIT, Reply, answer_chat, count


class SmallEngine:
    """Answers as vLLM 0.32 does (entrypoints/openai/models/serving.py), and keeps what it was asked.

    It can be told to misbehave: to ask for a `key`, to `refuse` adapters in these words, to be `busy` (it answers
    nothing until that is over), to be so many times silent about its health (`deaf`), to answer all with a
    `status`, or to `die` in the midst of an answer.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, str] = {}
        self.asked: list[tuple[str, dict]] = []
        self.key: str | None = None
        self.refuse: str | None = None
        self.status: int | None = None
        self.busy = False
        self.deaf = 0
        self.die = False
        self.reply: Reply | None = None  # to chats; None: it tells who it is
        self.answering = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.asked.append((request.path, body))
        if request.path == "/health" and self.deaf:
            self.deaf -= 1
            await asyncio.sleep(60)
        while self.busy:
            await asyncio.sleep(0.01)
        if self.status is not None:
            return web.Response(status=self.status, headers={"location": "http://elsewhere.invalid/"})
        if self.key is not None and request.path.startswith("/v1") and not self._let_in(request):
            return web.json_response({"error": "Unauthorized"}, status=401)  # as vLLM says it
        match request.path:
            case "/v1/load_lora_adapter":
                if self.refuse is not None:
                    return error(400, self.refuse)
                if body["lora_name"] in self.loaded:
                    return error(400, f"The lora adapter '{body['lora_name']}' has already been loaded.")
                self.loaded[body["lora_name"]] = body["lora_path"]
                return web.Response(text="Success")
            case "/v1/unload_lora_adapter":
                if self.loaded.pop(body["lora_name"], None) is None:
                    return error(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
                return web.Response(text="Success")
            case "/v1/chat/completions":
                if self.die or (body["model"].startswith("ft:") and body["model"] not in self.loaded):
                    return await self._chat(request, body)
                self.answering += 1
                try:
                    return await self.chat(request, body)
                finally:
                    self.answering -= 1
            case "/tokenize":
                return self.tokenize(body)
        return web.Response(status=200)

    async def chat(self, request: web.Request, body: dict) -> web.StreamResponse:
        return await answer_chat(request, body, self.reply or Reply(f"I am {body['model']}."))

    def tokenize(self, body: dict) -> web.Response:
        return web.json_response({"count": count(body), "max_model_len": LIMIT, "tokens": []})

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked if path != "/health"]

    async def _chat(self, request: web.Request, body: dict) -> web.StreamResponse:
        if body["model"].startswith("ft:") and body["model"] not in self.loaded:
            return error(404, f"The model `{body['model']}` does not exist.")
        stream = web.StreamResponse(headers={"content-type": "text/event-stream"})
        if body.get("stream"):
            await stream.prepare(request)
            await stream.write(b'data: {"choices": [{"index": 0, "delta": {"content": "I"}}]}\n\n')
        assert request.transport is not None
        request.transport.abort()
        return stream

    def _let_in(self, request: web.Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {self.key}"


def error(status: int, message: str) -> web.Response:
    return web.json_response(
        {"error": {"message": message, "type": "NotFoundError", "code": status}}, status=status
    )


@contextmanager
def running(engine: SmallEngine, socket: Path) -> Iterator[None]:
    """Serves on `socket` from a thread of its own during the block."""
    with _serving(engine, lambda runner: web.UnixSite(runner, str(socket))):
        yield


@contextmanager
def listening(engine: SmallEngine, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The same on a port of loopback, which is yielded."""
    with _serving(engine, lambda runner: web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)) as runner:
        yield runner.addresses[0][1]


@contextmanager
def _serving(engine: SmallEngine, site: Callable[[web.AppRunner], web.BaseSite]) -> Iterator[web.AppRunner]:
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    # A client that leaves ends its answer, as in vLLM.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)

    async def start() -> None:
        await runner.setup()
        await site(runner).start()

    def do(what: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, loop).result()

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    do(start())
    try:
        yield runner
    finally:
        do(runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
