"""An open answer of the engine: read whole or streamed, its citations written in, its tokens counted.

The engine's bytes pass unchanged except in answers made with context.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp

from local_llm.errors import LocalLLMError, UnavailableError
from local_llm.state import Adapter
from serving.answering.cited import Cited, cite_delta, cite_message
from serving.answering.events import END, Response, TokenUsage, chunk_of, whole_events, without_usage
from serving.answering.prepare import Prepared
from serving.answering.refusal import Refusal
from serving.answering.standing import Standing
from serving.bodies import dump_json
from serving.engine_client import EngineError
from serving.services import Services


class Answer:
    """Either whole() or blocks() or chunks() may be called, once. `usage` is complete when they have ended."""

    def __init__(self, prepared: Prepared, response: Response, standing: Standing):
        self.prepared = prepared
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
        except (aiohttp.ClientError, TimeoutError):
            raise ended_early() from None
        self._answered.read_from(data)
        return await self._cited(data) if self.prepared.retrieved else data

    async def blocks(self) -> AsyncIterator[bytes]:
        """Server-sent events, ready to be sent. One that ends early is told as an event."""
        try:
            if self.prepared.retrieved:
                async for event in self._cited_events():
                    yield event
            else:
                async for events in whole_events(self._response.content):
                    left = without_usage(events, self._answered, told=self.prepared.tells_usage)
                    if left:
                        yield left
        except (aiohttp.ClientError, TimeoutError):
            error: LocalLLMError = ended_early()
            yield b"data: " + dump_json(error.envelope()) + END

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The events of a stream as objects, for those who make another shape of them. Raises: UnavailableError."""
        try:
            async for event in self._cited_events() if self.prepared.retrieved else self._plain_events():
                chunk = chunk_of(event)
                if chunk is not None:
                    yield chunk
        except (aiohttp.ClientError, TimeoutError):
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
        async for events in whole_events(self._response.content):
            for event in without_usage(events, self._answered, told=self.prepared.tells_usage).split(END):
                if event:
                    yield event + END

    def _citing(self) -> Cited:
        return Cited(self.prepared, self._standing)


@asynccontextmanager
async def open_answer(services: Services, prepared: Prepared) -> AsyncIterator[Answer]:
    """Leaving the block early cancels what is still being generated.

    Raises: RateLimitError, UnavailableError, EngineError.
    """
    question = prepared.question
    standing = Standing(services.index, question.caller)
    if prepared.refuses:
        yield Answer(prepared, Refusal(prepared), standing)
        return
    async with (
        services.admission.enter(question.caller, question.priority),
        _engine_response(services, prepared) as response,
    ):
        yield Answer(prepared, response, standing)


@asynccontextmanager
async def _engine_response(services: Services, prepared: Prepared) -> AsyncIterator[aiohttp.ClientResponse]:
    adapter, path = prepared.target.adapter, prepared.question.path
    async with AsyncExitStack() as stack:
        if adapter is not None:
            await _load(services, adapter)
        try:
            response = await stack.enter_async_context(services.engine.post(path, prepared.body))
        except EngineError as error:
            if error.status != 404 or adapter is None:
                raise
            # The engine was restarted since: it knows the adapter no longer.
            services.engine.forget_adapter(adapter.name)
            await _load(services, adapter)
            response = await stack.enter_async_context(services.engine.post(path, prepared.body))
        yield response


async def _load(services: Services, adapter: Adapter) -> None:
    if not services.engine.knows_adapter(adapter.name):
        # Hashing it takes a while, and other answers stream meanwhile.
        path = await asyncio.to_thread(services.adapters.verify, adapter)
        await services.engine.load_adapter(adapter.name, path)


def ended_early() -> UnavailableError:
    return UnavailableError("the engine ended while it answered", hint="ask again")
