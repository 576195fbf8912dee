"""How many tokens a chat is for the engine, which alone has the tokenizer and the chat template.

Most chats are far from the limit, and that is known without asking: a tokenizer that falls back to bytes, as those
of today's models do, makes at most one token of a byte.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from serving.bodies import dump_json
from serving.engine_client import EngineError
from serving.engine_pool import Engine

# What a template puts around a message: its role and the marks of a turn. Harmony's, the longest seen, takes 8.
TURN_TOKENS = 16
# Of a chat that has any of these more is rendered than the texts of its messages.
_RENDERED = ("tools", "chat_template", "chat_template_kwargs", "documents", "functions")
_PASSED_ON = ("tools", "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")

Body = dict[str, Any]


@dataclass(frozen=True)
class Window:
    """`tokens`: of prompt and answer together; `overhead_tokens`: of a chat that says one letter."""

    tokens: int
    overhead_tokens: int


class PromptTokens:
    """Counts for one engine. Adapters have the tokenizer and the template of their base."""

    def __init__(self, engine: Engine, base: str):
        self._engine = engine
        self._base = base
        self._window: Window | None = None
        self._measuring = asyncio.Lock()

    async def window(self) -> Window | None:
        """Asked once; None if the engine cannot count. Raises: UnavailableError."""
        if self._window is None:
            async with self._measuring:
                if self._window is None:
                    self._window = await self._measured()
        return self._window

    async def exactly(self, chat: Body) -> int | None:
        """As the engine would count this request's prompt; None if it cannot. Raises: UnavailableError."""
        told = await self._tokenized(chat)
        return None if told is None else int(told["count"])

    def at_most(self, chat: Body, window: Window) -> int | None:
        """A bound that needs no engine; None for chats of which more is rendered than text."""
        if any(chat.get(name) for name in _RENDERED):
            return None
        tokens = window.overhead_tokens
        for message in chat["messages"]:
            text = _only_text(message)
            if text is None:
                return None
            tokens += len(text.encode(errors="replace")) + TURN_TOKENS
        return tokens

    async def _measured(self) -> Window | None:
        told = await self._tokenized({"messages": [{"role": "user", "content": "a"}]})
        return None if told is None else Window(int(told["max_model_len"]), int(told["count"]))

    async def _tokenized(self, chat: Body) -> Body | None:
        asked = {name: chat[name] for name in _PASSED_ON if name in chat}
        body = {"model": self._base, "messages": chat["messages"], **asked}
        try:
            async with self._engine.post("/tokenize", body) as response:
                told: Body = await response.json()
                return told
        except EngineError:  # it has no such route, or refuses this very chat: in its own words when it is asked
            return None


def _only_text(message: Body) -> str | None:
    """All of a message's text; None if it holds anything else."""
    if set(message) - {"role", "content", "name"}:
        return None
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if any(part.get("type") != "text" for part in content):
        return None
    return "".join(part["text"] for part in content)


def bytes_of(chat: Body) -> int:
    return len(dump_json(chat["messages"]))
