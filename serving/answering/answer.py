"""An open answer of the engine: read whole or streamed, its citations written in, its tokens counted.

The engine's bytes pass unchanged except in answers made with context.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

from local_llm.audit import Seen
from local_llm.errors import LocalLLMError, UnavailableError
from serving.answering.accounting import asked_in, estimated_tokens, spend
from serving.answering.cited import Cited, cite_delta, cite_message
from serving.answering.events import END, Response, TokenUsage, chunk_of, whole_events, without_usage
from serving.answering.prepare import INTERACTIVE, Prepared
from serving.answering.refusal import Refusal
from serving.answering.sources import Sources
from serving.answering.standing import Standing
from serving.bodies import dump_json
from serving.chats.assembling import said_in
from serving.engine_client import LateError, error_of
from serving.engine_connection import BrokenError
from serving.engine_http import NO_HEADERS
from serving.services import Services
from serving.telemetry.record import Record

# How an error begins that the engine tells in a stream.
_ERROR = b'data: {"error"'


class Answer:
    """Either whole() or blocks() or chunks() may be called, once. `usage` is complete when they have ended."""

    def __init__(
        self, prepared: Prepared, response: Response, standing: Standing, note: Callable[[LocalLLMError], None]
    ):
        """`note` is told of an error that went out as an event."""
        self.prepared = prepared
        self.first_seconds: float | None = None  # from the question to the first piece of a stream
        # All of it, where the project's audit log holds what was answered.
        self.sent: list[bytes] | None = [] if prepared.question.caller.keeps.log_content else None
        self._note = note
        self._events_passed = 0
        self._answered = TokenUsage()
        self._response = response
        self._standing = standing
        self._sources: Sources | None = None

    @property
    def usage(self) -> TokenUsage:
        """What was taken in all: by this answer, and by the rewriting of its question."""
        rewritten = self.prepared.rewritten
        return self._answered if rewritten is None else self._answered.plus(rewritten.usage)

    def charged(self) -> TokenUsage:
        """What was taken by this answer alone. One that was broken off is counted as what it took at least: of such
        the engine tells nothing, and an event holds a token or more."""
        if not self._answered.input_tokens and _is_estimated(self.prepared):
            self._answered = TokenUsage(estimated_tokens(self.prepared.body), 0, self._events_passed)
        return self._answered

    async def whole(self) -> bytes:
        """JSON. Raises: UnavailableError."""
        try:
            data = await self._response.read()
        except (BrokenError, TimeoutError):
            raise ended_early() from None
        self._answered.read_from(data)
        whole = await self._cited(data) if self.prepared.retrieved else data
        if self.sent is not None:
            self.sent.append(whole)
        return whole

    async def blocks(self) -> AsyncIterator[bytes]:
        """Server-sent events, ready to be sent. One that ends early is told as an event.

        Raises: EngineError before the first.
        """
        try:
            if self.prepared.retrieved:
                async for event in self._cited_events():
                    if self.sent is not None:
                        self.sent.append(event)
                    yield event
            else:
                told = self.prepared.tells_usage
                async for events in whole_events(self._response):
                    self._look_at(events)
                    left = without_usage(events, self._answered, told=told)
                    if left:
                        if self.sent is not None:
                            self.sent.append(left)
                        yield left
        except (BrokenError, TimeoutError):
            error = ended_early()
            self._note(error)
            yield b"data: " + dump_json(error.envelope()) + END

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The events of a stream as objects, for those who make another shape of them. Raises: UnavailableError."""
        try:
            async for event in self._cited_events() if self.prepared.retrieved else self._plain_events():
                chunk = chunk_of(event)
                if chunk is not None:
                    if self.sent is not None:
                        self.sent.append(event)
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
            self._look_at(events)
            for event in without_usage(events, self._answered, told=told).split(END):
                if event:
                    yield event + END

    def _look_at(self, events: bytes) -> None:
        if self.first_seconds is None:
            self.first_seconds = time.perf_counter() - self.prepared.question.asked_at
            self._raise_if_refused(events)
        elif _ERROR in events:
            self._note(LocalLLMError("the engine could not go on"))
        self._events_passed += events.count(END)

    def _raise_if_refused(self, first: bytes) -> None:
        """vLLM finds some requests wrong (a schema it cannot follow) when its stream has begun, and says so there.

        Raises: EngineError.
        """
        if first.startswith(_ERROR):
            error = json.loads(first[len(b"data: ") : first.index(END)])["error"]
            raise error_of(int(error["code"]), error, self.prepared.question.path)

    def _citing(self) -> Cited:
        if self._sources is None:
            self._sources = Sources(self.prepared.hits)
        return Cited(self.prepared, self._standing, self._sources)


@asynccontextmanager
async def open_answer(
    services: Services, prepared: Prepared, *, record: Record | None = None, object_id: str | None = None
) -> AsyncIterator[Answer]:
    """Leaving the block early cancels what is still being generated. `record`: of the request, where there is one;
    `object_id`: what the audit log calls the answer, if not by its request.

    Raises: RateLimitError, and as EngineClient.post.
    """
    question = prepared.question
    standing = Standing(services.index, question.caller)
    note = _no_note if record is None else record.note
    answer: Answer | None = None
    is_asked = False
    try:
        if prepared.refuses:
            answer = Answer(prepared, Refusal(prepared), standing, note)
            yield answer
            return
        with _span_headers(services, prepared) as headers:
            async with services.admission.enter(question.caller, question.priority, prepared.wanted):
                is_asked = True
                async with services.engine.post(
                    question.path, prepared.body, prepared.target.adapter, headers
                ) as response:
                    answer = Answer(prepared, response, standing, note)
                    yield answer
    except (asyncio.CancelledError, LateError):
        if answer is None and is_asked and _is_estimated(prepared):  # a whole one is made before a word of it comes
            answer = Answer(prepared, Refusal(prepared), standing, note)
        raise
    finally:
        if answer is not None:
            _account(services, answer, record, object_id or question.request_id)


def _span_headers(services: Services, prepared: Prepared) -> AbstractContextManager[Mapping[str, str]]:
    span = prepared.question.span
    return services.observer.engine_span(span) if span is not None else nullcontext(NO_HEADERS)


def _account(services: Services, answer: Answer, record: Record | None, object_id: str) -> None:
    """What an answer took, also one that was broken off."""
    prepared, used = answer.prepared, answer.charged()
    question, target = prepared.question, prepared.target
    spend(services, question.caller, question.priority, target.model, used, passages=len(prepared.hits))
    services.observer.answered(target.model, prepared.strategy, used, answer.first_seconds, question.asked_at)
    if record is not None:
        record.usage, record.first_token_seconds = answer.usage, answer.first_seconds
    if prepared.retrieved or answer.sent is not None:
        services.audit.answered(
            question.caller,
            question.body.get("model"),
            ", ".join(sorted(set(prepared.searched))) or None,
            [Seen(hit.document_id, hit.version) for hit in prepared.hits],
            object_id=object_id,
            question=prepared.query if prepared.retrieved else asked_in(question.body),
            answer=None if answer.sent is None else said_in(answer.sent),
        )


def _is_estimated(prepared: Prepared) -> bool:
    """Not what no engine was asked, nor what a batch asks again until it has an answer."""
    return prepared.question.priority == INTERACTIVE and not prepared.refuses


def _no_note(_error: LocalLLMError) -> None:
    """Of a question that no request brought."""


def ended_early() -> UnavailableError:
    return UnavailableError("the engine ended while it answered", hint="ask again")
