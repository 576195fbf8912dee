"""From a question to a request ready for the engine: resolve the model, retrieve, assemble the prompt."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from index.interface import Hit
from local_llm.errors import InvalidInputError
from local_llm.permissions import Caller
from local_llm.prompts import REFUSAL, Message, instruction_of, text_of, with_context
from serving.answering.budget import Budget
from serving.answering.fields import (
    answers_wanted,
    last_user_of,
    messages_of,
    model_name_of,
    refuse_functions,
    refuse_wrong_format,
    refuse_wrong_types,
)
from serving.answering.retrieval import Retrieval, retrieval_for, retrieve
from serving.answering.rewriting import Asker, Rewritten, self_contained
from serving.answering.targets import Target
from serving.services import Services
from serving.telemetry.record import Record, new_request_id

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"

# For vLLM (--scheduling-policy priority) the lower comes first.
INTERACTIVE, BATCH = 0, 1

Body = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """What a client asks of a model. `path` is that of the API and of the engine; `body` is a JSON object.

    `server_url` is where the client reaches us: citations lead there. `retrieval` is what the request itself asks
    to be searched, whatever its model.
    """

    caller: Caller
    path: str
    body: Body
    server_url: str = ""
    priority: int = INTERACTIVE
    request_id: str = field(default_factory=new_request_id)
    retrieval: Retrieval | None = None
    asked_at: float = field(default_factory=time.perf_counter)
    span: Any = None  # of OpenTelemetry, where the request is traced

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))


def identity_of(record: Record | None) -> dict[str, Any]:
    """By which request a question comes; None: by none of its own."""
    if record is None:
        return {}
    return {"request_id": record.request_id, "asked_at": record.began, "span": record.span}


@dataclass(frozen=True)
class Prepared:
    """A request ready for the engine, and what was retrieved for it.

    `hits` are the passages put before the model, the last one perhaps cut; `found` counts those that the search of
    the collections `searched` brought for `query`. `rewritten` tells of the query where the question was another.
    `wanted`: how many answers the engine is asked for.
    """

    question: Question
    target: Target
    body: Body
    hits: list[Hit]
    retrieval_seconds: float
    query: str | None = None
    searched: tuple[str, ...] = ()
    found: int = 0
    last_is_cut: bool = False
    rewritten: Rewritten | None = None
    only_from_context: bool = False
    refusal: str = REFUSAL
    encode_seconds: float = 0.0  # of retrieval_seconds
    search_seconds: float = 0.0
    wanted: int = 1

    @property
    def retrieved(self) -> bool:
        return self.query is not None

    @property
    def strategy(self) -> str:
        if self.target.profile is not None:
            return self.target.profile.strategy
        return "base" if self.target.adapter is None else "fine_tuned"

    @property
    def is_prose(self) -> bool:
        response_format = (self.body.get("response_format") or {}).get("type", "text")
        return response_format == "text" and not self.body.get("structured_outputs")

    @property
    def writes_markers(self) -> bool:
        """Markers go into prose only: not into JSON, nor beside log-probabilities of the very tokens."""
        return self.is_prose and not self.body.get("logprobs")

    @property
    def refuses(self) -> bool:
        """Whether the answer is known without a model: nothing was found, and nothing else may be answered from."""
        held = self.retrieved and self.only_from_context
        return held and not self.found and self.writes_markers and not self.body.get("tools")

    @property
    def tells_usage(self) -> bool:
        """Whether the client asked for the chunk that ends a stream with its usage. We always do."""
        options = self.question.body.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))


def admit(services: Services, caller: Caller, priority: int) -> None:
    """Counts a question. Raises: RateLimitError if it is one too many for its key."""
    if priority == INTERACTIVE:
        services.limits.enter(caller)


async def prepare(services: Services, question: Question, *, admitted: bool = False) -> Prepared:
    """`admitted`: the question was counted.

    Raises: InvalidInputError, ModelNotFoundError, RateLimitError, UnavailableError.
    """
    if not admitted:
        admit(services, question.caller, question.priority)
    prepared = await _prepare(services, question)
    if prepared.retrieved:
        services.observer.retrieved(question.span, prepared.retrieval_seconds)
    return prepared


async def _prepare(services: Services, question: Question) -> Prepared:
    if question.path == COMPLETION:
        return _prepare_completion(services, question)
    return await _prepare_chat(services, question)


async def _prepare_chat(services: Services, question: Question) -> Prepared:
    target = services.targets.resolve(question.caller, model_name_of(question.body))
    messages, wanted = messages_of(question.body), answers_wanted(question.body)
    refuse_functions(question.body)
    refuse_wrong_format(question.body)
    profile = target.profile
    if profile is not None and not profile.retrieves:
        messages = _instructed(profile.prompt, messages)
    retrieval = retrieval_for(question.retrieval, profile)
    if retrieval is not None:
        prepared = await _with_passages(services, question, target, retrieval, messages)
        if prepared.refuses:
            refuse_wrong_types(question.body)
        return replace(prepared, wanted=wanted)
    sent = {**_theirs(question.body), "messages": messages, **_ours(question, target)}
    return Prepared(question, target, sent, [], 0.0, wanted=wanted)


async def _with_passages(
    services: Services, question: Question, target: Target, retrieval: Retrieval, messages: list[Message]
) -> Prepared:
    asked = text_of(messages[last_user_of(messages)]["content"])
    rewritten = await _rewritten(services, question, retrieval, messages, asked)
    if rewritten.seconds is not None:
        services.observer.rewritten(question.span, rewritten.seconds)
    started = time.perf_counter()
    found = await retrieve(services, question.caller, retrieval, rewritten.text)
    settings = services.settings
    only_from_context, refusal = retrieval.only_from_context, retrieval.refusal or settings.answering.refusal
    instruction = instruction_of(retrieval.prompt, only_from_context=only_from_context, refusal=refusal)

    def render(hits: Sequence[Hit]) -> list[Message]:
        if not hits and not only_from_context:
            return _instructed(retrieval.prompt, messages)
        return with_context(messages, hits, instruction)

    body = {**_theirs(question.body), **_ours(question, target)}
    budget = Budget(services.prompt_tokens, settings.engine.max_model_tokens, settings.answering.reserve_tokens)
    hits = await budget.fit(body, found.hits, render) if found.hits else []
    return Prepared(
        question,
        target,
        {**body, "messages": render(hits)},
        hits,
        time.perf_counter() - started,
        query=rewritten.text,
        searched=retrieval.collections,
        found=len(found.hits),
        last_is_cut=bool(hits) and hits[-1].text != found.hits[len(hits) - 1].text,
        encode_seconds=found.encode_seconds,
        search_seconds=found.search_seconds,
        rewritten=None if rewritten.seconds is None else rewritten,
        only_from_context=only_from_context,
        refusal=refusal,
    )


def _instructed(prompt: str | None, messages: list[Message]) -> list[Message]:
    """A chat without context, in which a profile's words are a system message."""
    return [{"role": "system", "content": prompt}, *messages] if prompt else messages


async def _rewritten(
    services: Services, question: Question, retrieval: Retrieval, messages: list[Message], asked: str
) -> Rewritten:
    wanted = services.settings.answering.rewrite if retrieval.rewrite is None else retrieval.rewrite
    if not wanted:
        return Rewritten(asked)
    caller = question.caller
    asker = Asker(caller, question.priority, question.request_id, cache_salt(caller))
    return await self_contained(services, asker, messages, asked)


def _prepare_completion(services: Services, question: Question) -> Prepared:
    """A bare completion: no chat, so nothing is retrieved for it."""
    target = services.targets.resolve(question.caller, model_name_of(question.body))
    if target.profile is not None and target.profile.retrieves:
        raise InvalidInputError(
            f"the profile {target.profile.name!r} retrieves, which needs a chat",
            hint="POST /v1/chat/completions",
            param="model",
        )
    wanted = answers_wanted(question.body)
    sent = {**_theirs(question.body), **_ours(question, target)}
    return Prepared(question, target, sent, [], 0.0, wanted=wanted)


def _theirs(body: Body) -> Body:
    """What the engine is told of what the client sent: not what is kept here, nor what it is called."""
    if "store" in body or "metadata" in body:
        return {name: value for name, value in body.items() if name not in ("store", "metadata")}
    return body


def _ours(question: Question, target: Target) -> Body:
    """Fields that are never the client's: one could jump the queue, or find out what another's cache holds."""
    ours: Body = {
        "model": target.model,
        "cache_salt": cache_salt(question.caller),
        "priority": question.priority,
        "request_id": question.request_id,
    }
    if question.streams:
        options = question.body.get("stream_options")
        if options is not None and not isinstance(options, dict):
            raise InvalidInputError("stream_options: expected an object", param="stream_options")
        ours["stream_options"] = {**(options or {}), "include_usage": True}
    return ours


def cache_salt(caller: Caller) -> str:
    """Keeps the prefix cache of one project from answering faster for another, which would tell what it holds."""
    return _salt_of(caller.project_id)


@lru_cache(maxsize=10_000)
def _salt_of(project_id: str) -> str:
    return hashlib.sha256(project_id.encode()).hexdigest()[:16]
