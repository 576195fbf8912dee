"""A small engine: vLLM's routes for adapters and chats, over a Unix socket, with canned answers."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from .replies import LIMIT, Reply, answer_chat, count


class SmallEngine:
    """Answers as vLLM 0.32 does (entrypoints/openai/models/serving.py), and keeps what it was asked."""

    def __init__(self) -> None:
        self.loaded: dict[str, str] = {}
        self.asked: list[tuple[str, dict]] = []
        self.reply: Reply | None = None  # to chats; None: it tells who it is
        self.answering = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.asked.append((request.path, body))
        match request.path:
            case "/v1/load_lora_adapter":
                self.loaded[body["lora_name"]] = body["lora_path"]
                return web.Response(text="Success")
            case "/v1/unload_lora_adapter":
                if self.loaded.pop(body["lora_name"], None) is None:
                    return _error(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
                return web.Response(text="Success")
            case "/v1/chat/completions":
                self.answering += 1
                try:
                    return await answer_chat(request, body, self.reply or Reply(f"I am {body['model']}."))
                finally:
                    self.answering -= 1
            case "/tokenize":
                return web.json_response({"count": count(body), "max_model_len": LIMIT, "tokens": []})
        return web.Response(status=200)

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


def _error(status: int, message: str) -> web.Response:
    return web.json_response(
        {"error": {"message": message, "type": "NotFoundError", "code": status}}, status=status
    )


@contextmanager
def running(engine: SmallEngine, socket: Path) -> Iterator[None]:
    """Serves on `socket` from a thread of its own during the block."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    # A client that leaves ends its answer, as in vLLM.
    runner = web.AppRunner(app, handler_cancellation=True)

    async def start() -> None:
        await runner.setup()
        await web.UnixSite(runner, str(socket)).start()

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
