"""One request of a batch, asked as its key asks, until there is an answer or an error that will not mend itself."""

import asyncio
import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fastapi.exceptions import RequestValidationError

from local_llm.errors import LocalLLMError, RateLimitError, UnavailableError
from local_llm.permissions import Caller
from serving.answering.answer import open_answer
from serving.answering.events import TokenUsage
from serving.answering.prepare import BATCH, Question, prepare
from serving.batches.requests import Line, Request, read_request
from serving.batches.room import MOST_BYTES, Room
from serving.bodies import dump_json
from serving.embeddings import EMBEDDINGS, embed
from serving.engine_client import EngineError
from serving.error_responses import invalid_input
from serving.responses import asking as responses
from serving.responses.requests import CreateResponse
from serving.responses.requests import read_request as read_response
from serving.services import Services
from serving.telemetry.record import new_request_id

# What is retrieved or encoded at once for all batches: the index server has people to answer.
LOOKED_UP_AT_ONCE = 4
# With the engine up, an answer that so often came to no end will come to none.
MOST_TRIES = 5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
# A key's day may be long, but its limits can be raised, or it can be revoked, before that.
LONGEST_WAIT_SECONDS = 60.0

RESPONSES = "/v1/responses"

log = logging.getLogger("local_llm.batches")


@dataclass(frozen=True)
class Reply:
    """To the request `custom_id`. `body` is JSON of one line."""

    custom_id: str
    status: int
    request_id: str
    body: bytes
    usage: TokenUsage = field(default_factory=TokenUsage)

    @property
    def succeeded(self) -> bool:
        return self.status == 200


@dataclass(frozen=True)
class Source:
    """Where a batch's requests stand, and what they ask. `server_url`: where citations lead."""

    path: Path
    endpoint: str
    server_url: str


@dataclass(frozen=True)
class _Failure:
    """Of a try, in a way that may mend itself; `reply` tells of it, if it was the last.

    Not the exception: that would keep all of the request in memory for as long as we wait.
    """

    reply: Reply
    advised_seconds: float
    engine_failed: bool


class Asker:
    """Asks for all batches of a process. A request is in memory only while it is asked."""

    def __init__(
        self, services: Services, first_pause_seconds: float = FIRST_PAUSE_SECONDS, most_bytes: int = MOST_BYTES
    ):
        self._services = services
        self._first_pause_seconds = first_pause_seconds
        self._looking_up = asyncio.Semaphore(LOOKED_UP_AT_ONCE)
        self.room = Room(most_bytes)

    async def ask(self, line: Line, source: Source, who: Callable[[], Caller]) -> Reply:
        """An error is a reply, too. `who` is looked up for each try.

        Raises: AuthenticationError, by `who` only; FileNotFoundError if the source is gone.
        """
        tries, pause = 0, self._first_pause_seconds
        while True:
            caller = await asyncio.to_thread(who)
            try:
                with self._services.limits.batch(caller):
                    tried = await self._try(line, source, caller)
                if isinstance(tried, Reply):
                    return tried
                tries += await self._counts(tried)
                if tries >= MOST_TRIES:
                    return tried.reply
                advised = tried.advised_seconds
            except RateLimitError as used_up:
                advised = used_up.retry_after_seconds or 0.0
            await asyncio.sleep(min(max(pause * random.uniform(0.5, 1), advised), LONGEST_WAIT_SECONDS))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _try(self, line: Line, source: Source, caller: Caller) -> Reply | _Failure:
        """Raises: FileNotFoundError."""
        async with self.room.hold(line.size):
            request, request_id = await asyncio.to_thread(read_request, source.path, line), new_request_id()
            try:
                if source.endpoint == EMBEDDINGS:
                    return await self._embed(caller, request, request_id)
                if source.endpoint == RESPONSES:
                    return await self._respond(caller, request, source.server_url)
                question = Question(caller, source.endpoint, request.body, source.server_url, BATCH, request_id)
                return await self._answer(request.custom_id, question)
            except RequestValidationError as wrong:
                return _told(request.custom_id, request_id, invalid_input(wrong))
            except LocalLLMError as refused:
                return _told(request.custom_id, request_id, refused)
            except Exception as unexpected:
                log.error("line %d failed", request.number, exc_info=unexpected)
                ours = "the server had an error while processing the request; it is in gateway.log"
                return _told(request.custom_id, request_id, LocalLLMError(ours))

    async def _counts(self, failure: _Failure) -> bool:
        """Whether a try counts: not while something is down, nor while the key has used up what it may."""
        if failure.reply.status == RateLimitError.status or not await self._services.engine.ready():
            return False
        return failure.engine_failed or await self._services.index.answers()

    async def _answer(self, custom_id: str, question: Question) -> Reply:
        async with self._looking_up:
            prepared = await prepare(self._services, question)
        async with open_answer(self._services, prepared) as answer:
            body = await answer.whole()
        return Reply(custom_id, 200, question.request_id, _on_one_line(body), answer.usage)

    async def _embed(self, caller: Caller, request: Request, request_id: str) -> Reply:
        async with self._looking_up:
            body = await embed(self._services, caller, request.body, batch=True)
        usage = TokenUsage()
        usage.read_from(body)
        return Reply(request.custom_id, 200, request_id, body, usage)

    async def _respond(self, caller: Caller, request: Request, server_url: str) -> Reply:
        asked = read_response(CreateResponse, request.body)
        async with self._looking_up:
            asking = await responses.ask(self._services, caller, asked, server_url, BATCH)
        body = await responses.whole(self._services, asking)
        told = json.loads(body).get("usage") or {}
        cached = (told.get("input_tokens_details") or {}).get("cached_tokens", 0)
        usage = TokenUsage(told.get("input_tokens", 0), cached, told.get("output_tokens", 0))
        return Reply(request.custom_id, 200, asking.prepared.question.request_id, body, usage)


def _told(custom_id: str, request_id: str, error: LocalLLMError) -> Reply | _Failure:
    """What is busy or down is asked again; and an engine that fails: one whose core dies says 500 to all it has."""
    reply = Reply(custom_id, error.status, request_id, dump_json(error.envelope()))
    engine_failed = isinstance(error, EngineError) and error.status >= LocalLLMError.status
    if engine_failed or error.status in (RateLimitError.status, UnavailableError.status):
        return _Failure(reply, getattr(error, "retry_after_seconds", None) or 0.0, engine_failed)
    return reply


def _on_one_line(body: bytes) -> bytes:
    return dump_json(json.loads(body)) if b"\n" in body else body
