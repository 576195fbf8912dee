"""Request bodies in and JSON out. What is ambiguous is refused, and what is sent on is written anew."""

import json
from typing import Any

from starlette.requests import Request
from starlette.types import Message

from local_llm.errors import InvalidInputError

MAX_DEPTH = 64


class BodyTooLargeError(InvalidInputError):
    status = 413
    code = "body_too_large"


def limited(request: Request, max_bytes: int) -> Request:
    """The same request, whose body ends in an error beyond `max_bytes`."""
    size = 0

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > max_bytes:
            raise BodyTooLargeError(f"the body holds more than {max_bytes} bytes")
        return message

    return Request(request.scope, receive)


async def read_json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The request's body as a JSON object.

    Raises: InvalidInputError if it is none, or holds a key twice: two readers could then disagree on it.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise BodyTooLargeError(f"the body holds {declared} bytes; at most {max_bytes} are accepted")
    return parse_json_object(await limited(request, max_bytes).body())


def parse_json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_refuse_twice, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise InvalidInputError("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError as error:  # a number of thousands of digits
        raise InvalidInputError(f"the body cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInputError(f"the body is a JSON {type(value).__name__}; expected an object")
    if _depth(value) > MAX_DEPTH:
        raise InvalidInputError(f"the body is nested more than {MAX_DEPTH} deep")
    try:
        dump_json(value)
    except ValueError as error:  # half a surrogate pair, or a number beyond all others
        raise InvalidInputError(f"the body holds what JSON cannot: {error}") from None
    return value


def dump_json(value: Any) -> bytes:
    """Raises: ValueError for what is no JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidInputError(f"the body has the key {twice!r} twice", param=twice)
    return result


def _refuse_constant(name: str) -> None:
    raise InvalidInputError(f"the body holds {name}, which is not JSON")


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        inner = [x.values() if isinstance(x, dict) else x for x in level if isinstance(x, dict | list)]
        level = [y for values in inner for y in values if isinstance(y, dict | list)]
    return deepest
