"""One request of a batch, asked as its key asks, until there is an answer or an error that will not mend itself."""

import asyncio
import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from fastapi.exceptions import RequestValidationError

from local_llm.errors import LocalLLMError, RateLimitError, UnavailableError
from local_llm.permissions import Caller
from serving.answering.answer import open_answer
from serving.answering.events import TokenUsage
from serving.answering.prepare import BATCH, Question, prepare
from serving.batches.requests import Request
from serving.bodies import dump_json
from serving.embeddings import EMBEDDINGS, embed
from serving.error_responses import invalid_input
from serving.responses import asking as responses
from serving.responses.requests import CreateResponse, read_request
from serving.services import Services
from serving.telemetry.record import new_request_id

# What is retrieved or encoded at once for all batches: the index server has people to answer.
LOOKED_UP_AT_ONCE = 4
# With the engine up, an answer that so often came to no end will come to none.
MOST_TRIES = 5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0

RESPONSES = "/v1/responses"

log = logging.getLogger("local_llm.batches")


@dataclass(frozen=True)
class Reply:
    """`body` is JSON of one line."""

    status: int
    request_id: str
    body: bytes
    usage: TokenUsage = field(default_factory=TokenUsage)

    @property
    def succeeded(self) -> bool:
        return self.status == 200


class Asker:
    """Asks for all batches of a process."""

    def __init__(self, services: Services, first_pause_seconds: float = FIRST_PAUSE_SECONDS):
        self._services = services
        self._first_pause_seconds = first_pause_seconds
        self._looking_up = asyncio.Semaphore(LOOKED_UP_AT_ONCE)

    async def ask(self, request: Request, endpoint: str, server_url: str, who: Callable[[], Caller]) -> Reply:
        """An error is a reply, too. `who` is looked up for each try. Raises: AuthenticationError, by `who` only."""
        tries, pause = 0, self._first_pause_seconds
        while True:
            caller, request_id = who(), new_request_id()
            error: LocalLLMError
            try:
                if endpoint == EMBEDDINGS:
                    return await self._embed(caller, request, request_id)
                if endpoint == RESPONSES:
                    return await self._respond(caller, request, server_url)
                return await self._answer(Question(caller, endpoint, request.body, server_url, BATCH, request_id))
            except RequestValidationError as wrong:
                error = invalid_input(wrong)
            except LocalLLMError as refused:
                error = refused
            except Exception as unexpected:
                log.error("line %d failed", request.number, exc_info=unexpected)
                error = LocalLLMError("the server had an error while processing the request; it is in gateway.log")
            if error.status not in (RateLimitError.status, UnavailableError.status):
                return _refused(error, request_id)
            tries += await self._counts(error)
            if tries >= MOST_TRIES:
                return _refused(error, request_id)
            advised = getattr(error, "retry_after_seconds", None) or 0
            await asyncio.sleep(max(pause * random.uniform(0.5, 1), advised))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _counts(self, error: LocalLLMError) -> bool:
        """Whether a try counts: not while something is down, nor while the key has used up what it may."""
        if error.status != UnavailableError.status:
            return False
        return await self._services.engine.ready() and await self._services.index.answers()

    async def _answer(self, question: Question) -> Reply:
        async with self._looking_up:
            prepared = await prepare(self._services, question)
        async with open_answer(self._services, prepared) as answer:
            body = await answer.whole()
        return Reply(200, question.request_id, _on_one_line(body), answer.usage)

    async def _embed(self, caller: Caller, request: Request, request_id: str) -> Reply:
        async with self._looking_up:
            body = await embed(self._services, caller, request.body)
        usage = TokenUsage()
        usage.read_from(body)
        return Reply(200, request_id, body, usage)

    async def _respond(self, caller: Caller, request: Request, server_url: str) -> Reply:
        asked = read_request(CreateResponse, request.body)
        async with self._looking_up:
            asking = await responses.ask(self._services, caller, asked, server_url, BATCH)
        body = await responses.whole(self._services, asking)
        told = json.loads(body).get("usage") or {}
        cached = (told.get("input_tokens_details") or {}).get("cached_tokens", 0)
        usage = TokenUsage(told.get("input_tokens", 0), cached, told.get("output_tokens", 0))
        return Reply(200, asking.prepared.question.request_id, body, usage)


def _refused(error: LocalLLMError, request_id: str) -> Reply:
    return Reply(error.status, request_id, dump_json(error.envelope()))


def _on_one_line(body: bytes) -> bytes:
    return dump_json(json.loads(body)) if b"\n" in body else body
