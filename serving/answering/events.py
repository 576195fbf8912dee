"""The engine's server-sent events: passed on as they came, or taken apart where something is added."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from serving.engine_connection import BrokenError

END = b"\n\n"
# One event holds one token, or a few; one longer than this is none of vLLM's.
MAX_EVENT_BYTES = 4 * 1024**2

_DATA = b"data: "
_DECODER = json.JSONDecoder()
# A string in JSON escapes its quotes: neither can stand in what a model wrote.
_NO_CHOICE, _USAGE = b'"choices":[]', b'"usage":{'


class Response(Protocol):
    """What an answer needs of the engine's: all of it, or what has come (nothing once it has ended)."""

    async def read(self) -> bytes: ...
    async def readany(self) -> bytes: ...


@dataclass
class TokenUsage:
    """What an answer took, as the engine counts it; all 0 until it has told."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def plus(self, other: "TokenUsage") -> "TokenUsage":
        return TokenUsage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
        )

    def read(self, usage: dict[str, Any]) -> None:
        self.input_tokens = usage.get("prompt_tokens") or 0
        self.output_tokens = usage.get("completion_tokens") or 0
        self.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0

    def read_from(self, answer: bytes) -> None:
        """From a whole answer, without parsing all of it."""
        at = answer.rfind(_USAGE)
        if at >= 0:
            text = answer[at + len(_USAGE) - 1 :].decode()
            self.read(_DECODER.raw_decode(text)[0])


async def whole_events(response: Response) -> AsyncIterator[bytes]:
    """One or more whole events at a time, as soon as they are there, with the blank lines behind them.

    Raises: BrokenError for one without an end.
    """
    rest = b""
    while block := await response.readany():
        if rest:
            block = rest + block
        if block.endswith(END):
            rest = b""
        else:
            cut = block.rfind(END) + len(END)
            block, rest = (block[:cut], block[cut:]) if cut >= len(END) else (b"", block)
            if len(rest) > MAX_EVENT_BYTES:
                raise BrokenError("an event of the engine has no end")
        if block:
            yield block
    if rest:
        yield rest


def without_usage(events: bytes, usage: TokenUsage, *, told: bool) -> bytes:
    """Reads the usage out of the events where it stands; the event that only tells it is left out unless `told`."""
    if _NO_CHOICE not in events:
        return events
    kept = []
    for event in events.split(END):
        if _NO_CHOICE in event and _USAGE in event and event.startswith(_DATA):
            usage.read(json.loads(event[len(_DATA) :])["usage"])
            if not told:
                continue
        kept.append(event)
    return END.join(kept)


def chunk_of(event: bytes) -> dict[str, Any] | None:
    """The JSON object of an event; None for any other, as `[DONE]`."""
    if not event.startswith(b"data: {"):
        return None
    chunk: dict[str, Any] = json.loads(event[len(_DATA) :])
    return chunk
