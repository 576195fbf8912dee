"""Questions put to the running server, eight at once; each answer is kept as it comes."""

import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from local_llm.cli.output import progress_bar
from quality_bench.lines import Journal, Row

CONCURRENCY = 8
MOST_TOKENS = 48
TIMEOUT_SECONDS = 600
RETRIES = 10  # a busy server says when to come back


@dataclass(frozen=True)
class Request:
    """One question as it is sent. `behind`: what the answer depends on that the request does not say (the adapter
    behind a profile, its words): an answer that was kept holds for the same only."""

    question: str  # its id
    model: str
    messages: tuple[dict[str, Any], ...]
    behind: str

    @property
    def key(self) -> str:
        told = json.dumps([self.question, self.model, self.messages, self.behind, MOST_TOKENS])
        return hashlib.sha256(told.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Answer:
    """`cited`: names of the documents that it cites."""

    question: str
    text: str
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    cited: tuple[str, ...]

    @classmethod
    def of(cls, row: Row) -> "Answer":
        values = {name: value for name, value in row.items() if name != "key"}
        return cls(**{**values, "cited": tuple(values["cited"])})


def ask(url: str, title: str, requests: Sequence[Request], kept: Journal) -> None:
    """Those that have no answer yet. Raises: openai.OpenAIError."""
    left = missing(requests, kept)
    with progress_bar(title) as bar:
        asyncio.run(_ask_all(url, left, kept, lambda done: bar(done, len(left))))


def missing(requests: Sequence[Request], kept: Journal) -> list[Request]:
    return [one for one in requests if kept.get(one.key) is None]


def found(requests: Sequence[Request], kept: Journal) -> list[Answer]:
    """The answers that are there, in the order of the requests."""
    rows = [kept.get(one.key) for one in requests]
    return [Answer.of(row) for row in rows if row is not None]


async def _ask_all(url: str, requests: Sequence[Request], kept: Journal, report: Any) -> None:
    import openai

    turns, done = asyncio.Semaphore(CONCURRENCY), 0
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=url, api_key="none", timeout=TIMEOUT_SECONDS, max_retries=RETRIES, http_client=http
    ) as client:

        async def one(request: Request) -> None:
            nonlocal done
            async with turns:
                kept.add(request.key, await _ask(client, request))
            done += 1
            report(done)

        async with asyncio.TaskGroup() as group:
            for request in requests:
                group.create_task(one(request))


async def _ask(client: Any, request: Request) -> Row:
    started = time.perf_counter()
    reply = await client.chat.completions.create(
        model=request.model, messages=list(request.messages), temperature=0, max_tokens=MOST_TOKENS
    )
    message = reply.choices[0].message.model_dump()
    return {
        "question": request.question,
        "text": message["content"] or "",
        "seconds": round(time.perf_counter() - started, 3),
        "prompt_tokens": reply.usage.prompt_tokens,
        "completion_tokens": reply.usage.completion_tokens,
        "cited": [citation["document"] for citation in message.get("citations") or ()],
    }
