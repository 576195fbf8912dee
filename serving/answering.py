"""From a chat request to an open answer: resolve the model, retrieve, assemble the prompt, ask the engine."""

import hashlib
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp

from index.interface import Hit
from local_llm.errors import InvalidInputError
from local_llm.permissions import Caller
from local_llm.prompts import last_user_position, text_of, with_context
from serving.services import Services
from serving.targets import Target, resolve

Body = dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """A request ready for the engine, and what was retrieved for it."""

    target: Target
    body: Body
    hits: list[Hit]
    retrieval_seconds: float

    @property
    def retrieved(self) -> bool:
        return self.target.profile is not None and self.target.profile.retrieves

    @property
    def writes_markers(self) -> bool:
        """Markers go into prose only: not into JSON, nor beside log-probabilities of the very tokens."""
        response_format = (self.body.get("response_format") or {}).get("type", "text")
        structured = response_format != "text" or self.body.get("structured_outputs")
        return not structured and not self.body.get("logprobs")


async def prepare_chat(services: Services, caller: Caller, body: Body) -> Prepared:
    """Raises: InvalidInputError, ModelNotFoundError, UnavailableError."""
    target = resolve(services, caller, _model_name(body))
    messages = _messages(body)
    hits: list[Hit] = []
    started = time.perf_counter()
    profile = target.profile
    if profile is not None and profile.retrieves and profile.collection is not None:
        question = text_of(messages[_last_user(messages)]["content"])
        hits = await services.index.search(caller, profile.collection, question, profile.k)
        messages = with_context(messages, hits, profile.prompt)
    elif profile is not None and profile.prompt:
        messages = [{"role": "system", "content": profile.prompt}, *messages]
    sent = {**body, "model": target.model, "messages": messages, "cache_salt": cache_salt(caller)}
    return Prepared(target, sent, hits, time.perf_counter() - started)


def prepare_completion(services: Services, caller: Caller, body: Body) -> Prepared:
    """A bare completion: no chat, so nothing is retrieved for it."""
    target = resolve(services, caller, _model_name(body))
    if target.profile is not None and target.profile.retrieves:
        raise InvalidInputError(
            f"the profile {target.profile.name!r} retrieves, which needs a chat",
            hint="POST /v1/chat/completions",
            param="model",
        )
    return Prepared(target, {**body, "model": target.model, "cache_salt": cache_salt(caller)}, [], 0.0)


async def open_answer(
    services: Services, path: str, prepared: Prepared, stack: AsyncExitStack
) -> aiohttp.ClientResponse:
    """The engine's open response; closing `stack` closes it, which cancels what is still being generated.

    Raises: as EngineClient.post.
    """
    opened = services.engine.post(path, prepared.body, prepared.target.adapter)
    return await stack.enter_async_context(opened)


def cache_salt(caller: Caller) -> str:
    """Keeps the prefix cache of one project from answering faster for another, which would tell what it holds."""
    return hashlib.sha256(caller.project_id.encode()).hexdigest()[:16]


def _model_name(body: Body) -> str:
    if not isinstance(body.get("stream"), bool | None):
        raise InvalidInputError(f"stream: expected true or false, not {body['stream']!r}", param="stream")
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise InvalidInputError("you must provide a model parameter", param="model")
    return name


def _messages(body: Body) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise InvalidInputError("messages: expected a list of one or more objects", param="messages")
    for position, message in enumerate(messages):
        _refuse_parts(message.get("content"), f"messages[{position}].content")
    return messages


def _last_user(messages: list[dict[str, Any]]) -> int:
    try:
        position = last_user_position(messages)
    except ValueError:
        raise InvalidInputError("messages: no message has the role `user`", param="messages") from None
    if not text_of(messages[position].get("content")).strip():
        raise InvalidInputError("messages: the last user message holds no text", param="messages")
    return position


def _refuse_parts(content: Any, param: str) -> None:
    """Text and data URLs only: an address would let a client have the engine look into the inner network."""
    if content is not None and not isinstance(content, str | list):
        raise InvalidInputError(f"{param}: expected a string or a list of parts", param=param)
    for part in content if isinstance(content, list) else []:
        if not isinstance(part, dict):
            raise InvalidInputError(f"{param}: expected a list of objects", param=param)
        if part.get("type") == "text" and not isinstance(part.get("text"), str):
            raise InvalidInputError(f"{param}: a text part needs `text`, a string", param=param)
        image = part.get("image_url")
        address = image.get("url") if isinstance(image, dict) else image
        if address is not None and not str(address).startswith("data:"):
            raise InvalidInputError(f"{param}: images are accepted as data: URLs only", param=param)
