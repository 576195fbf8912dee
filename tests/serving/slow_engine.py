"""An engine whose answers take as long as a test wants, and which knows how many it is still making."""

import asyncio
import json

from aiohttp import web

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4},
}
METRICS = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
"""


class SlowEngine:
    """`pieces` are streamed one every `pause_seconds`; a whole answer takes as long as all of them."""

    def __init__(self, pieces: int = 3, pause_seconds: float = 0.0):
        self.pieces, self.pause_seconds = pieces, pause_seconds
        self.running = 0
        self.begun = 0
        self.headers: list[dict[str, str]] = []
        self.connections: list[object] = []  # on which questions came

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/metrics":
            return web.Response(text=METRICS)
        if request.method == "GET":
            return web.Response()
        body = await request.json()
        self.headers.append(dict(request.headers))
        self.connections.append(request.protocol)
        self.running += 1
        self.begun += 1
        try:
            return await (self._stream(request) if body.get("stream") else self._whole())
        finally:
            self.running -= 1

    async def _whole(self) -> web.Response:
        await asyncio.sleep(self.pieces * self.pause_seconds)
        message = {"role": "assistant", "content": "Aye. " * self.pieces}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return _json({"id": "c", "object": "chat.completion", "choices": [choice], "usage": USAGE})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(self.pieces):
            await response.write(_event([{"index": 0, "delta": {"content": f"{number} "}}]))
            await asyncio.sleep(self.pause_seconds)
        await response.write(_event([], usage=USAGE) + b"data: [DONE]\n\n")
        return response


def _json(value: object) -> web.Response:
    return web.Response(text=json.dumps(value, separators=(",", ":")), content_type="application/json")


def _event(choices: list[dict], **more: object) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": choices, **more}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"
