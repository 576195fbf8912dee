"""Follow-up questions made self-contained for the search: "And the P6?" finds nothing as it stands.

One short generation by the base model; an adapter would answer in its own style. The model that answers sees the
chat as it was, and whatever goes wrong here, the question is searched for as it was asked.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from local_llm.errors import LocalLLMError
from local_llm.permissions import Caller
from local_llm.prompts import Message, rewrite_messages
from serving.answering.accounting import estimated_tokens, spend
from serving.answering.events import TokenUsage
from serving.answering.words import content_words
from serving.services import Services

CHAT = "/v1/chat/completions"
# A question is seldom longer; what runs on is an answer.
MOST_TOKENS = 64
MOST_CHARACTERS = 400
# Of what the question says so much has to be in the rewritten one: small models begin to speak of other things.
KEPT_SHARE = 0.5

log = logging.getLogger("local_llm.gateway")


@dataclass(frozen=True)
class Rewritten:
    """What is searched for. `seconds` is None where no model was asked."""

    text: str
    seconds: float | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)


@dataclass(frozen=True)
class Asker:
    """For whom and how the engine is asked. `cache_salt` is the project's."""

    caller: Caller
    priority: int
    request_id: str
    cache_salt: str


async def self_contained(services: Services, asker: Asker, messages: Sequence[Message], question: str) -> Rewritten:
    """The last question of the chat in words that stand alone; the question itself if it is the chat's first."""
    asked = rewrite_messages(messages)
    if asked is None:
        return Rewritten(question)
    started, usage = time.perf_counter(), TokenUsage()
    text = question
    try:
        async with asyncio.timeout(services.settings.answering.rewrite_timeout_seconds):
            text = _accepted(await _ask(services, asker, asked, usage), question)
    except (LocalLLMError, TimeoutError, KeyError, TypeError, IndexError, ValueError) as error:
        log.warning("a follow-up question is searched for as it was asked: %s: %s", type(error).__name__, error)
    return Rewritten(text, time.perf_counter() - started, usage)


async def _ask(services: Services, asker: Asker, messages: list[Message], usage: TokenUsage) -> str:
    body: dict[str, Any] = {
        "model": services.base.name,
        "messages": messages,
        "max_tokens": MOST_TOKENS,
        "temperature": 0,
        "cache_salt": asker.cache_salt,
        "priority": asker.priority,
        "request_id": f"{asker.request_id}-rewrite",
    }
    async with services.admission.enter(asker.caller, asker.priority):
        try:
            async with services.engine.post(CHAT, body) as response:
                answer = await response.json()
            usage.read(answer["usage"])
        except asyncio.CancelledError:  # the time is over: what the engine took for it, it does not tell
            usage.input_tokens = estimated_tokens(body)
            raise
        finally:
            _account(services, asker, usage)
    return str(answer["choices"][0]["message"]["content"] or "")


def _account(services: Services, asker: Asker, usage: TokenUsage) -> None:
    """Apart from the answer, which may never come."""
    model = services.base.name
    spend(services, asker.caller, asker.priority, model, usage, requests=0)
    services.observer.metrics.count_tokens(model, usage)


def _accepted(rewritten: str, question: str) -> str:
    """The rewritten question if it is one: a line, not too long, that still asks for what was asked."""
    line = next((line.strip() for line in rewritten.splitlines() if line.strip()), "")
    said = content_words(question)
    kept = len(said & content_words(line)) >= KEPT_SHARE * len(said)
    return line.strip('"') if line and len(line) <= MOST_CHARACTERS and kept else question
