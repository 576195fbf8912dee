"""A small engine that talks: its answers are made from what it is asked, and its window has an end."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web

from .recording_engine import SmallEngine, error

# Tokens of this engine: words and signs, and what its template puts around a message.
TOKEN = re.compile(r"\w+|[^\w\s]")
TURN_TOKENS = 4

Says = Callable[[dict[str, Any]], str]


def name_itself(body: dict[str, Any]) -> str:
    return f"I am {body['model']}."


class TalkingEngine(SmallEngine):
    """`says` makes the answer of a request; one that offers tools is answered by a call of the first."""

    def __init__(self, says: Says = name_itself, window: int = 4096) -> None:
        super().__init__()
        self.says = says
        self.window = window

    def tokenize(self, body: dict[str, Any]) -> web.Response:
        return web.json_response({"count": tokens_of(body), "max_model_len": self.window, "tokens": []})

    def chats(self) -> list[dict[str, Any]]:
        return [body for path, body in self.asked if path == "/v1/chat/completions"]

    async def chat(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if tokens_of(body) >= self.window:
            return error(400, f"This model's maximum context length is {self.window} tokens.")
        count, usage = body.get("n") or 1, _usage(tokens_of(body))
        texts = [None if body.get("tools") else await asyncio.to_thread(self.says, body) for _ in range(count)]
        if not body.get("stream"):
            choices = [_choice(index, text, body) for index, text in enumerate(texts)]
            whole = {"object": "chat.completion", "choices": choices, "usage": usage}
            return web.json_response(whole, dumps=_compact)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for choice in _deltas(texts, body):
            await response.write(_event({"choices": [choice]}))
        await response.write(_event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        return response


def tokens_of(chat: dict[str, Any]) -> int:
    contents = [str(message.get("content") or "") for message in chat["messages"]]
    return sum(TURN_TOKENS + len(TOKEN.findall(content)) for content in contents)


def _usage(prompt_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt_tokens, "completion_tokens": 3, "total_tokens": prompt_tokens + 3}


def _call(body: dict[str, Any]) -> list[dict[str, Any]]:
    function = {"name": body["tools"][0]["function"]["name"], "arguments": "{}"}
    return [{"index": 0, "id": "call_1", "type": "function", "function": function}]


def _choice(index: int, text: str | None, body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if text is None:
        message["tool_calls"] = _call(body)
    return {"index": index, "message": message, "finish_reason": "stop" if text else "tool_calls"}


def _deltas(texts: list[str | None], body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A word of each choice in turn, as the engine mixes them."""
    for index, _ in enumerate(texts):
        yield {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    words = [re.findall(r"\S+\s*", text or "") for text in texts]
    for position in range(max(map(len, words))):
        for index, said in enumerate(words):
            if position < len(said):
                yield {"index": index, "delta": {"content": said[position]}, "finish_reason": None}
    for index, text in enumerate(texts):
        if text is None:
            yield {"index": index, "delta": {"tool_calls": _call(body)}, "finish_reason": None}
        yield {"index": index, "delta": {"content": ""}, "finish_reason": "stop" if text else "tool_calls"}


def _event(value: dict[str, Any]) -> bytes:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "small", **value}
    return b"data: " + _compact(chunk).encode() + b"\n\n"


def _compact(value: Any) -> str:
    """As the engine writes JSON: without blanks."""
    return json.dumps(value, separators=(",", ":"))
