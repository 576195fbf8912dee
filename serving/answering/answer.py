"""An open answer of the engine: read whole or streamed, its citations written in, its tokens counted.

The engine's bytes pass unchanged except in answers made with context.
"""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

from local_llm.audit import Seen
from local_llm.errors import LocalLLMError, UnavailableError
from serving.answering.cited import Cited, cite_delta, cite_message
from serving.answering.events import END, Response, TokenUsage, chunk_of, whole_events, without_usage
from serving.answering.prepare import INTERACTIVE, Prepared
from serving.answering.refusal import Refusal
from serving.answering.standing import Standing
from serving.bodies import dump_json
from serving.engine_client import error_of
from serving.engine_connection import BrokenError
from serving.engine_http import NO_HEADERS
from serving.services import Services

# How the first event begins where there is no answer.
_REFUSED = b'data: {"error"'


class Answer:
    """Either whole() or blocks() or chunks() may be called, once. `usage` is complete when they have ended."""

    def __init__(self, prepared: Prepared, response: Response, standing: Standing):
        self.prepared = prepared
        self.first_seconds: float | None = None  # from the question to the first piece of a stream
        self._answered = TokenUsage()
        self._response = response
        self._standing = standing

    @property
    def usage(self) -> TokenUsage:
        """What was taken in all: by this answer, and by the rewriting of its question."""
        rewritten = self.prepared.rewritten
        return self._answered if rewritten is None else self._answered.plus(rewritten.usage)

    async def whole(self) -> bytes:
        """JSON. Raises: UnavailableError."""
        try:
            data = await self._response.read()
        except (BrokenError, TimeoutError):
            raise ended_early() from None
        self._answered.read_from(data)
        return await self._cited(data) if self.prepared.retrieved else data

    async def blocks(self) -> AsyncIterator[bytes]:
        """Server-sent events, ready to be sent. One that ends early is told as an event.

        Raises: EngineError before the first.
        """
        try:
            if self.prepared.retrieved:
                async for event in self._cited_events():
                    yield event
            else:
                told = self.prepared.tells_usage
                async for events in whole_events(self._response):
                    self._note_first(events)
                    left = without_usage(events, self._answered, told=told)
                    if left:
                        yield left
        except (BrokenError, TimeoutError):
            error: LocalLLMError = ended_early()
            yield b"data: " + dump_json(error.envelope()) + END

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The events of a stream as objects, for those who make another shape of them. Raises: UnavailableError."""
        try:
            async for event in self._cited_events() if self.prepared.retrieved else self._plain_events():
                chunk = chunk_of(event)
                if chunk is not None:
                    yield chunk
        except (BrokenError, TimeoutError):
            raise ended_early() from None

    async def _cited(self, data: bytes) -> bytes:
        answer = json.loads(data)
        for choice in answer["choices"]:
            await cite_message(choice, self._citing())
        return dump_json(answer)

    async def _cited_events(self) -> AsyncIterator[bytes]:
        choices: dict[int, Cited] = {}
        async for event in self._plain_events():
            chunk = chunk_of(event)
            if chunk is None:
                yield event
                continue
            for choice in chunk.get("choices", []):
                index = choice["index"]
                if index not in choices:
                    choices[index] = self._citing()
                await cite_delta(choice, choices[index])
            yield b"data: " + dump_json(chunk) + END

    async def _plain_events(self) -> AsyncIterator[bytes]:
        """One event at a time."""
        told = self.prepared.tells_usage
        async for events in whole_events(self._response):
            self._note_first(events)
            for event in without_usage(events, self._answered, told=told).split(END):
                if event:
                    yield event + END

    def _note_first(self, first: bytes) -> None:
        if self.first_seconds is None:
            self.first_seconds = time.perf_counter() - self.prepared.question.asked_at
            self._raise_if_refused(first)

    def _raise_if_refused(self, first: bytes) -> None:
        """vLLM finds some requests wrong (a schema it cannot follow) when its stream has begun, and says so there.

        Raises: EngineError.
        """
        if first.startswith(_REFUSED):
            error = json.loads(first[len(b"data: ") : first.index(END)])["error"]
            raise error_of(int(error["code"]), error, self.prepared.question.path)

    def _citing(self) -> Cited:
        return Cited(self.prepared, self._standing)


@asynccontextmanager
async def open_answer(services: Services, prepared: Prepared) -> AsyncIterator[Answer]:
    """Leaving the block early cancels what is still being generated.

    Raises: RateLimitError, and as EngineClient.post.
    """
    question = prepared.question
    standing = Standing(services.index, question.caller)
    if prepared.refuses:
        answer = Answer(prepared, Refusal(prepared), standing)
        try:
            yield answer
        finally:
            _account(services, answer)
        return
    with _span_headers(services, prepared) as headers:
        async with (
            services.admission.enter(question.caller, question.priority),
            services.engine.post(question.path, prepared.body, prepared.target.adapter, headers) as response,
        ):
            answer = Answer(prepared, response, standing)
            try:
                yield answer
            finally:
                _account(services, answer)


def _span_headers(services: Services, prepared: Prepared) -> AbstractContextManager[Mapping[str, str]]:
    span = prepared.question.span
    return services.observer.engine_span(span) if span is not None else nullcontext(NO_HEADERS)


def _account(services: Services, answer: Answer) -> None:
    """What an answer took, also one that was broken off."""
    prepared, used = answer.prepared, answer.usage
    question, target = prepared.question, prepared.target
    tokens, batch = used.input_tokens + used.output_tokens, question.priority != INTERACTIVE
    services.limits.spent(question.caller, tokens, batch=batch)
    services.observer.answered(target.model, prepared.strategy, used, answer.first_seconds, question.asked_at)
    services.usage.count(
        question.caller,
        target.model,
        "batch" if batch else "completions",
        input_tokens=used.input_tokens,
        cached_tokens=used.cached_tokens,
        output_tokens=used.output_tokens,
        passages=len(prepared.hits),
    )
    if prepared.retrieved:
        services.audit.answered(
            question.caller,
            question.body.get("model"),
            ", ".join(sorted(set(prepared.searched))) or None,
            [Seen(hit.document_id, hit.version) for hit in prepared.hits],
            object_id=question.request_id,
            question=prepared.query,
        )


def ended_early() -> UnavailableError:
    return UnavailableError("the engine ended while it answered", hint="ask again")
