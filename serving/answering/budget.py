"""Passages cut to what the model reads: the engine is never asked for more than it takes because of our context.

The worst passages give way first, and the last one that stays is cut at the end of a sentence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from index.interface import Hit
from local_llm.errors import InvalidInputError
from local_llm.prompts import Message, context_prompt
from serving.answering.sources import sentence_spans
from serving.prompt_tokens import PromptTokens, Window, bytes_of

# Estimates aim a little short of the limit: another try costs a call, a passage of five less costs a few words.
MARGIN = 0.95
MOST_TRIES = 4

Body = dict[str, Any]
Render = Callable[[Sequence[Hit]], list[Message]]
"""The chat with these passages in it."""


class ContextTooLongError(InvalidInputError):
    code = "context_length_exceeded"


@dataclass(frozen=True)
class Budget:
    """The two numbers are the settings'; the engine's own window counts if it is smaller."""

    tokens: PromptTokens
    max_model_tokens: int
    reserve_tokens: int

    async def fit(self, body: Body, hits: Sequence[Hit], render: Render) -> list[Hit]:
        """Those passages that fit, the last one cut if need be. `render` makes the messages of the request.

        A chat that is too long without any passage is left to the engine, which says so.

        Raises: ContextTooLongError if the chat fits but leaves no room for a passage; UnavailableError.
        """
        window = await self.tokens.window()
        if window is None:
            window = Window(self.max_model_tokens, 0)
        limit = min(window.tokens, self.max_model_tokens)
        room = limit - answer_tokens(body, limit, self.reserve_tokens)
        whole = {**body, "messages": render(hits)}
        bound = self.tokens.at_most(whole, window)
        if bound is not None and bound <= room:
            return list(hits)
        count = await self.tokens.exactly(whole)
        if count is None:
            return list(hits) if bound is None else _cut_by_bytes(hits, room - (bound - _context_bytes(hits)))
        if count <= room:
            return list(hits)
        return await self._cut(body, hits, render, room, limit, count)

    async def _cut(
        self, body: Body, hits: Sequence[Hit], render: Render, room: int, limit: int, count: int
    ) -> list[Hit]:
        bare = {**body, "messages": render([])}
        bare_tokens = await self.tokens.exactly(bare)
        if bare_tokens is None or bare_tokens > limit:
            return []
        whole_bytes = bytes_of({"messages": render(hits)}) - bytes_of(bare)
        allowed = MARGIN * whole_bytes * (room - bare_tokens) / max(1, count - bare_tokens)
        for _ in range(MOST_TRIES):
            kept = cut_to(hits, int(allowed))
            if not kept:
                break
            now = await self.tokens.exactly({**body, "messages": render(kept)})
            if now is not None and now <= room:
                return kept
            over = 1.0 if now is None else (room - bare_tokens) / max(1, now - bare_tokens)
            allowed *= MARGIN * min(1.0, over)
        # One token of a byte at most: this fits, whatever the tokenizer makes of it.
        return _cut_by_bytes(hits, room - bare_tokens)


def answer_tokens(body: Body, limit: int, reserve: int) -> int:
    """What is kept free for the answer: what the client asked for, up to half of what the model takes.

    Clients that always ask for as much as the model takes would else get no context: the engine cuts such answers.
    """
    asked = body.get("max_completion_tokens")
    asked = body.get("max_tokens") if asked is None else asked
    wanted = asked if isinstance(asked, int) and not isinstance(asked, bool) and asked > 0 else reserve
    return min(wanted, limit // 2)


def cut_to(hits: Sequence[Hit], size: int) -> list[Hit]:
    """The best passages that take so many bytes in the prompt."""
    kept: list[Hit] = []
    for hit in hits:
        if _context_bytes([*kept, hit]) <= size:
            kept.append(hit)
            continue
        shortened = _shortened(kept, hit, size)
        return kept if shortened is None else [*kept, shortened]
    return kept


def _cut_by_bytes(hits: Sequence[Hit], size: int) -> list[Hit]:
    kept = cut_to(hits, size)
    if hits and not kept:
        raise ContextTooLongError(
            "the chat and the answer asked for leave no room for what was found in the documents",
            hint="send fewer earlier messages, or ask for fewer max_tokens",
            param="messages",
        )
    return kept


def _shortened(kept: Sequence[Hit], hit: Hit, size: int) -> Hit | None:
    """As many whole sentences from its beginning as fit beside the others."""
    for _, end in reversed(sentence_spans(hit.text)):
        cut = replace(hit, text=hit.text[:end], end=hit.start + end)
        if _context_bytes([*kept, cut]) <= size:
            return cut
    return None


def _context_bytes(hits: Sequence[Hit]) -> int:
    """What the passages add to a prompt, as JSON or UTF-8, whichever is longer: near enough for estimates."""
    return len(context_prompt("", hits, " ").encode()) - len(context_prompt("", [], " ").encode())
