"""Request bodies in and JSON out. What is ambiguous is refused, and what is sent on is written anew."""

import json
from typing import Any

from starlette.requests import Request

from local_llm.errors import InvalidInputError

MAX_DEPTH = 64


class BodyTooLargeError(InvalidInputError):
    status = 413
    code = "body_too_large"


async def read_json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The request's body as a JSON object.

    Raises: InvalidInputError if it is none, or holds a key twice: two readers could then disagree on it.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise BodyTooLargeError(f"the body holds {declared} bytes; at most {max_bytes} are accepted")
    blocks, size = [], 0
    async for block in request.stream():
        size += len(block)
        if size > max_bytes:
            raise BodyTooLargeError(f"the body holds more than {max_bytes} bytes")
        blocks.append(block)
    return parse_json_object(b"".join(blocks))


def parse_json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_refuse_twice, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise InvalidInputError("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(value, dict):
        raise InvalidInputError(f"the body is a JSON {type(value).__name__}; expected an object")
    if _depth(value) > MAX_DEPTH:
        raise InvalidInputError(f"the body is nested more than {MAX_DEPTH} deep")
    return value


def dump_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


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
