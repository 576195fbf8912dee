"""A small engine that answers as the last message says: what a test wants of it stands in the question."""

import asyncio
import json
import time
from collections import Counter

from aiohttp import web


class TellingEngine:
    """Echoes the last message. `fail[text]` are statuses that it answers that message with first."""

    def __init__(self) -> None:
        self.asked: list[dict] = []  # all bodies
        self.fail: dict[str, list[int]] = {}
        self.pause_seconds = 0.0
        self.running = self.most_running = 0

    def counts(self) -> Counter[str]:
        return Counter(text_of(body) for body in self.asked)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        if request.path == "/tokenize":  # an engine that cannot count
            return web.Response(status=404)
        if request.method != "POST" or not request.path.endswith("completions"):
            return web.Response(status=200)
        self.asked.append(body)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            until = time.monotonic() + self.pause_seconds
            while time.monotonic() < until and request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0.02)
            return await self._answer(request, body)
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request, body: dict) -> web.StreamResponse:
        text = text_of(body)
        if self.fail.get(text):
            status = self.fail[text].pop(0)
            return web.json_response({"error": {"message": f"no {text}", "code": status}}, status=status)
        if body.get("stream"):
            return await self._stream(request, body, text)
        words = f"Aye, {text}"
        chosen = {"text": words} if "prompt" in body else {"message": {"role": "assistant", "content": words}}
        return web.json_response(
            {
                **_head(body, "chat.completion" if "messages" in body else "text_completion"),
                "choices": [{"index": 0, "logprobs": None, "finish_reason": "stop", **chosen}],
                "usage": USAGE,
            },
            dumps=lambda value: json.dumps(value, separators=(",", ":")),
        )

    async def _stream(self, request: web.Request, body: dict, text: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        deltas = [{"role": "assistant", "content": ""}, {"content": "Aye, "}, {"content": text}]
        for at, delta in enumerate(deltas):
            reason = "stop" if at == len(deltas) - 1 else None
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            await _send(response, {**_head(body, "chat.completion.chunk"), "choices": [choice]})
        await _send(response, {**_head(body, "chat.completion.chunk"), "choices": [], "usage": USAGE})
        await response.write(b"data: [DONE]\n\n")
        return response


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def text_of(body: dict) -> str:
    return body["prompt"] if "prompt" in body else body["messages"][-1]["content"]


def _head(body: dict, kind: str) -> dict:
    # vLLM makes the id of an answer from that of the request.
    return {"id": f"chatcmpl-{body['request_id']}", "object": kind, "created": 1, "model": body["model"]}


async def _send(response: web.StreamResponse, chunk: dict) -> None:
    await response.write(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")
