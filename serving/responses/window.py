"""Conversations that fit into the engine's window."""

from collections.abc import Sequence
from typing import Any

from serving.prompt_tokens import PromptTokens

# What is left for an answer whose length nobody limited.
ANSWER_SHARE = 0.25

Json = dict[str, Any]


async def shortened(tokens: PromptTokens, body: Json) -> Json:
    """The chat without as many of its oldest turns as have to go. System messages and the last turn stay.

    One that the engine cannot count is left as it is. Raises: UnavailableError.
    """
    window = await tokens.window()
    count = await tokens.exactly(body)
    if window is None or count is None:
        return body
    turns = _turns(body["messages"])
    room = window.tokens - (body.get("max_completion_tokens") or int(window.tokens * ANSWER_SHARE))
    if count <= room:
        return body
    fewest, enough = 1, max(0, len(turns) - 1)
    while fewest < enough:
        middle = (fewest + enough) // 2
        count = await tokens.exactly(_without(body, turns, middle))
        fits = count is not None and count <= room
        fewest, enough = (fewest, middle) if fits else (middle + 1, enough)
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
