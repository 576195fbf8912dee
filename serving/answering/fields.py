"""Fields of a question that are looked at here, and not by the engine alone: what each may be."""

from collections.abc import Mapping
from typing import Any

from local_llm.errors import InvalidInputError
from local_llm.prompts import last_user_position, text_of

# Source: the reference of the API.
MOST_CHOICES = 128
# Source: as of embeddings; a list of prompts was never given a bound.
MOST_PROMPTS = 2048

# Of what is answered without the engine, nobody else would say that they are wrong. (True is no number here.)
_NUMBER, _COUNT, _FLAG = "a number", "an integer", "true or false"
_KINDS: dict[str, tuple[type, ...]] = {_NUMBER: (int, float), _COUNT: (int,), _FLAG: (bool,)}
_FIELDS = {
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "seed": _COUNT,
    "top_logprobs": _COUNT,
    "logprobs": _FLAG,
    "parallel_tool_calls": _FLAG,
}


def model_name_of(body: Mapping[str, Any]) -> str:
    if not isinstance(body.get("stream"), bool | None):
        raise InvalidInputError(f"stream: expected true or false, not {body['stream']!r}", param="stream")
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise InvalidInputError("you must provide a model parameter", param="model")
    return name


def messages_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise InvalidInputError("messages: expected a list of one or more objects", param="messages")
    for position, message in enumerate(messages):
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            _refuse_parts(content, f"messages[{position}].content")
    return messages


def last_user_of(messages: list[dict[str, Any]]) -> int:
    try:
        position = last_user_position(messages)
    except ValueError:
        raise InvalidInputError("messages: no message has the role `user`", param="messages") from None
    if not text_of(messages[position].get("content")).strip():
        raise InvalidInputError("messages: the last user message holds no text", param="messages")
    return position


def _refuse_parts(content: Any, param: str) -> None:
    """Text and data URLs only: an address would let a client have the engine look into the inner network."""
    if not isinstance(content, list):
        raise InvalidInputError(f"{param}: expected a string or a list of parts", param=param)
    for part in content:
        if not isinstance(part, dict):
            raise InvalidInputError(f"{param}: expected a list of objects", param=param)
        if part.get("type") == "text" and not isinstance(part.get("text"), str):
            raise InvalidInputError(f"{param}: a text part needs `text`, a string", param=param)
        for name, value in part.items():
            if name.endswith("_url"):
                _refuse_address(value, name, param)


def _refuse_address(value: Any, name: str, param: str) -> None:
    address = value.get("url") if isinstance(value, dict) else value
    if address is not None and not str(address).startswith("data:"):
        raise InvalidInputError(f"{param}: {name} is accepted as a data: URL only", param=param)


def answers_wanted(body: Mapping[str, Any]) -> int:
    """How many the engine is asked for: choices, of a bare completion for each prompt.

    Raises: InvalidInputError for more than anybody needs.
    """
    n, prompt = body.get("n"), body.get("prompt")
    if n is None:
        n = 1
    elif type(n) is not int or not 1 <= n <= MOST_CHOICES:
        raise InvalidInputError(f"n: expected 1 to {MOST_CHOICES}, not {n!r:.40}", param="n")
    if not isinstance(prompt, list) or (prompt and isinstance(prompt[0], int)):
        return n
    if n * len(prompt) > MOST_PROMPTS:
        raise InvalidInputError(
            f"prompt: {len(prompt)} prompts, n = {n}; expected at most {MOST_PROMPTS} answers", param="prompt"
        )
    return max(1, n * len(prompt))


def refuse_functions(body: Mapping[str, Any]) -> None:
    """The form that tools had before: vLLM passes over it, and answers as if nothing could be called.

    Raises: InvalidInputError.
    """
    for name, instead in (("functions", "tools"), ("function_call", "tool_choice")):
        if body.get(name) not in (None, []):
            raise InvalidInputError(f"{name} is not supported", hint=f"send {instead}", param=name)


def refuse_wrong_format(body: Mapping[str, Any]) -> None:
    """Raises: InvalidInputError."""
    wanted = body.get("response_format")
    if wanted is not None and not isinstance(wanted, dict):
        raise InvalidInputError("response_format: expected an object", param="response_format")


def refuse_wrong_types(body: Mapping[str, Any]) -> None:
    """Raises: InvalidInputError."""
    for name, kind in _FIELDS.items():
        value = body.get(name)
        if value is not None and type(value) not in _KINDS[kind]:
            raise InvalidInputError(f"{name}: expected {kind}, not {value!r:.40}", param=name)
    stop = body.get("stop")
    if stop is None or isinstance(stop, str):
        return
    if not isinstance(stop, list) or not all(isinstance(one, str) for one in stop):
        raise InvalidInputError("stop: expected a string or a list of strings", param="stop")
