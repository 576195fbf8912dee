"""Fields of a question that are looked at here, and not by the engine alone: what each may be."""

from collections.abc import Mapping
from typing import Any

from local_llm.errors import InvalidInputError

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
    if stop is not None and not isinstance(stop, str):
        if not isinstance(stop, list) or not all(isinstance(one, str) for one in stop):
            raise InvalidInputError("stop: expected a string or a list of strings", param="stop")
