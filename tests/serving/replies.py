"""What a small engine answers a chat with: whole, or in chunks as vLLM streams them."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]
LIMIT = 1000


@dataclass
class Reply:
    """`calls` are names and arguments of functions. A stream breaks off after `breaks_after` chunks."""

    text: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    reasoning: str = ""
    finish_reason: str = "stop"
    pause_seconds: float = 0.0
    breaks_after: int | None = None

    def choice(self, body: Json) -> Json:
        message: Json = {"role": "assistant", "content": self.text or None, "annotations": None}
        if self.reasoning:
            message["reasoning"] = self.reasoning
        if self.calls:
            message["tool_calls"] = [_call(at, call) for at, call in enumerate(self.calls)]
        logprobs = {"content": [_logprob(word) for word in _words(self.text)]} if body.get("logprobs") else None
        return {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": self.finish_reason}

    def deltas(self, body: Json) -> Iterator[Json]:
        """Choices of chunks."""
        yield {"index": 0, "delta": {"role": "assistant", "content": ""}}
        for word in _words(self.reasoning):
            yield {"index": 0, "delta": {"reasoning": word}}
        for word in _words(self.text):
            logprobs = {"content": [_logprob(word)]} if body.get("logprobs") else None
            yield {"index": 0, "delta": {"content": word}, "logprobs": logprobs}
        for at, (name, arguments) in enumerate(self.calls):
            yield {"index": 0, "delta": {"tool_calls": [{"index": at, **_call(at, (name, ""))}]}}
            for start in range(0, len(arguments), 5):
                piece = {"index": at, "function": {"arguments": arguments[start : start + 5]}}
                yield {"index": 0, "delta": {"tool_calls": [piece]}}
        yield {"index": 0, "delta": {"content": ""}, "finish_reason": self.finish_reason}

    def usage(self, body: Json) -> Json:
        tokens = {"prompt_tokens": count(body), "completion_tokens": len(_words(self.text))}
        return {**tokens, "total_tokens": sum(tokens.values()), "prompt_tokens_details": {"cached_tokens": 3}}


async def answer_chat(request: web.Request, body: Json, reply: Reply) -> web.StreamResponse:
    if body.get("stream"):
        return await _stream(request, body, reply)
    await asyncio.sleep(reply.pause_seconds)
    answer = {"id": "c", "object": "chat.completion", "model": body["model"], "choices": [reply.choice(body)]}
    return _json({**answer, "usage": reply.usage(body)})


def count(body: Json) -> int:
    """A token is a word, in messages."""
    return len(json.dumps(body.get("messages", [])).split())


def _json(value: Json) -> web.Response:
    return web.Response(body=json.dumps(value, separators=(",", ":")).encode(), content_type="application/json")


async def _stream(request: web.Request, body: Json, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for at, choice in enumerate(reply.deltas(body)):
        if at == reply.breaks_after:
            assert request.transport is not None
            request.transport.close()
            return response
        await _send(response, {"object": "chat.completion.chunk", "model": body["model"], "choices": [choice]})
        await asyncio.sleep(reply.pause_seconds)
    await _send(response, {"object": "chat.completion.chunk", "choices": [], "usage": reply.usage(body)})
    await response.write(b"data: [DONE]\n\n")
    return response


async def _send(response: web.StreamResponse, chunk: Json) -> None:
    await response.write(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


def _call(at: int, call: tuple[str, str]) -> Json:
    return {"id": f"call_{at}", "type": "function", "function": {"name": call[0], "arguments": call[1]}}


def _logprob(word: str) -> Json:
    one = {"token": word, "logprob": -0.5, "bytes": list(word.encode())}
    return {**one, "top_logprobs": [one]}
