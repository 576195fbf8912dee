"""How many tokens the engine's prompt has, and conversations that fit into it."""

import json
from collections.abc import Sequence
from typing import Any

import aiohttp

from local_llm.errors import UnavailableError
from serving.services import Services

TOKENIZE = "/tokenize"
# What is left for an answer whose length nobody limited.
ANSWER_SHARE = 0.25

Json = dict[str, Any]


async def count_tokens(services: Services, body: Json) -> tuple[int, int]:
    """Tokens of a chat as the engine will read it, and the most it can hold with the answer. Images do not count.

    Raises: UnavailableError, EngineError.
    """
    # Adapters read by the tokenizer of their base, and need not be loaded for it.
    asked = {"model": services.base.name, "messages": body["messages"], "tools": body.get("tools")}
    try:
        async with services.engine.post(TOKENIZE, asked) as response:
            found = json.loads(await response.read())
    except aiohttp.ClientError:
        raise UnavailableError("the engine ended while it counted tokens", hint="ask again") from None
    return found["count"], found["max_model_len"]


async def shortened(services: Services, body: Json) -> Json:
    """The chat without as many of its oldest turns as have to go. System messages and the last turn stay.

    Raises: UnavailableError, EngineError.
    """
    turns = _turns(body["messages"])
    count, limit = await count_tokens(services, body)
    room = limit - (body.get("max_completion_tokens") or int(limit * ANSWER_SHARE))
    if count <= room:
        return body
    fewest, enough = 1, max(0, len(turns) - 1)
    while fewest < enough:
        middle = (fewest + enough) // 2
        count, _ = await count_tokens(services, _without(body, turns, middle))
        fewest, enough = (fewest, middle) if count <= room else (middle + 1, enough)
    return _without(body, turns, enough)


def _turns(messages: Sequence[Json]) -> list[list[int]]:
    """The places of the messages, in turns that each begin with a user; those of the system are in none."""
    turns: list[list[int]] = []
    for at, message in enumerate(messages):
        if message["role"] == "system":
            continue
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(at)
    return turns


def _without(body: Json, turns: Sequence[Sequence[int]], dropped: int) -> Json:
    gone = {at for turn in turns[:dropped] for at in turn}
    return {**body, "messages": [one for at, one in enumerate(body["messages"]) if at not in gone]}
