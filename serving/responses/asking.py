"""From a request to its answer, over the way that every chat takes."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from local_llm.errors import LocalLLMError, UnavailableError
from local_llm.identifiers import new_ordered_id
from local_llm.permissions import Caller
from serving.answering.answer import Answer, ended_early, open_answer
from serving.answering.prepare import CHAT, INTERACTIVE, Prepared, Question, admit, identity_of, prepare
from serving.bodies import dump_json
from serving.responses.chats import body_of, messages_of
from serving.responses.draft import Draft
from serving.responses.head import head_of
from serving.responses.items import check_calls, items_of
from serving.responses.requests import RESULTS, AskResponse, CreateResponse
from serving.responses.store import Conversation
from serving.responses.tools import tools_of
from serving.responses.window import shortened
from serving.responses.written import Events
from serving.services import Services
from serving.telemetry.record import Record
from serving.vector_stores.answers import hit_as_json

Json = dict[str, Any]

# Fields of a chat that errors may name, and what they were made from.
NAMES = {
    "messages": "input",
    "collection": "tools",
    "filters": "tools",
    "response_format": "text",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning",
}

log = logging.getLogger("local_llm.gateway")


@dataclass(frozen=True)
class Asking:
    """A request ready for the engine, and what it is kept with."""

    asked: CreateResponse
    caller: Caller
    items: list[Json]
    conversation: Conversation
    prepared: Prepared
    stored: bool
    record: Record | None = None
    response_id: str = field(default_factory=partial(new_ordered_id, "resp_"))

    def draft(self) -> tuple[Draft, Events]:
        """Begun, and searched if anything was: that is over by now."""
        draft = Draft(head_of(self.response_id, self.asked, self.prepared.target.model, stored=self.stored))
        events = draft.begin()
        if self.prepared.question.retrieval is not None and self.prepared.query is not None:
            results = [_result(hit_as_json(hit)) for hit in self.prepared.hits]
            events += draft.searched(self.prepared.query, results if self.asked.includes(RESULTS) else None)
        return draft, events


async def ask(
    services: Services,
    caller: Caller,
    asked: CreateResponse,
    server_url: str,
    priority: int = INTERACTIVE,
    record: Record | None = None,
) -> Asking:
    """`record`: of the request, where there is one.

    Raises: InvalidInputError, NotFoundError, UnavailableError.
    """
    prepared, items, conversation = await prepared_for(services, caller, asked, server_url, priority, record)
    if record is not None:
        record.model, record.strategy = prepared.target.model, prepared.strategy
    stored = asked.store is not False and caller.keeps.store_responses
    stored = stored and await asyncio.to_thread(services.responses.has_room, caller.project_id)
    return Asking(asked, caller, items, conversation, prepared, stored, record)


async def prepared_for(
    services: Services,
    caller: Caller,
    asked: AskResponse,
    server_url: str,
    priority: int = INTERACTIVE,
    record: Record | None = None,
) -> tuple[Prepared, list[Json], Conversation]:
    """Raises: as ask()."""
    items, tools = items_of(asked.input), tools_of(asked.tools, asked.tool_choice)
    # Before anything is looked up or counted: neither is for those who may not ask.
    admit(services, caller, priority)
    services.targets.resolve(caller, asked.model)
    conversation = Conversation()
    if asked.previous_response_id is not None:
        conversation = await asyncio.to_thread(services.responses.conversation, caller, asked.previous_response_id)
    said = [*conversation.items, *items]
    check_calls(said)
    body = body_of(asked, messages_of(asked.instructions, said), tools)
    if asked.truncation == "auto":
        body = await shortened(services.prompt_tokens, body)
    with in_our_words():
        question = Question(
            caller, CHAT, body, server_url, priority, retrieval=tools.retrieval, **identity_of(record)
        )
        return await prepare(services, question, admitted=True), items, conversation


async def whole(services: Services, asking: Asking) -> bytes:
    """JSON. Raises: RateLimitError, UnavailableError, EngineError."""
    draft, _ = asking.draft()
    with in_our_words():
        async with _opened(services, asking) as answer:
            draft.feed(json.loads(await answer.whole())["choices"][0])
    response, _ = draft.finish(answer.usage)
    await _keep(services, asking, response)
    return dump_json(response)


async def stream(services: Services, asking: Asking) -> AsyncGenerator[Json, None]:
    """Events. What fails before the first is raised; from then on it is told by `response.failed`.

    Raises: RateLimitError, UnavailableError, EngineError.
    """
    draft: Draft | None = None
    try:
        with in_our_words():
            async with _opened(services, asking) as answer:
                draft, begun = asking.draft()
                for event in begun:
                    yield event
                async for event in _written(draft, answer):
                    yield event
        response, closing = draft.finish(answer.usage)
        await _keep(services, asking, response)
    except LocalLLMError as error:
        if draft is None:
            raise
        closing = _failed(asking, draft, error)
    except asyncio.CancelledError:
        if draft is None or not services.draining:
            raise
        closing = _failed(asking, draft, UnavailableError("the server is being stopped", hint="ask again"))
    except Exception:
        if draft is None:
            raise
        log.exception("a response failed while it was streamed")
        ours = LocalLLMError("the server had an error while it answered; it is in gateway.log")
        closing = _failed(asking, draft, ours)
    for event in closing:
        yield event


def _opened(services: Services, asking: Asking) -> AbstractAsyncContextManager[Answer]:
    return open_answer(services, asking.prepared, record=asking.record, object_id=asking.response_id)


def _failed(asking: Asking, draft: Draft, error: LocalLLMError) -> Events:
    if asking.record is not None:
        asking.record.note(error)
    return draft.fail(error)


async def _written(draft: Draft, answer: Answer) -> AsyncIterator[Json]:
    async for chunk in answer.chunks():
        if "error" in chunk:
            raise LocalLLMError(f"the engine could not go on: {chunk['error'].get('message')}")
        for choice in chunk.get("choices", ()):
            for event in draft.feed(choice):
                yield event
    if draft.finish_reason is None:
        raise ended_early()


async def _keep(services: Services, asking: Asking, response: Json) -> None:
    """Before anybody sees that the response is complete."""
    if asking.stored:
        await asyncio.to_thread(services.responses.keep, asking.caller, response, asking.items, asking.conversation)


@contextmanager
def in_our_words() -> Iterator[None]:
    """A chat's fields are named in errors as this API names them."""
    try:
        yield
    except LocalLLMError as error:
        name, _, _ = (error.param or "").partition("[")
        error.param = NAMES.get(name, error.param)
        raise


def _result(hit: Json) -> Json:
    text = hit.pop("content")[0]["text"]
    return {**hit, "text": text}
