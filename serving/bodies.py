"""Request bodies in and JSON out. What is ambiguous is refused, and what is sent on is written anew."""

import asyncio
import json
import math
import time
from typing import Any

from starlette.requests import Request
from starlette.types import Message, Receive

from local_llm.errors import InvalidInputError, LocalLLMError

MAX_DEPTH = 64

SLOWEST_BYTES_PER_SECOND = 16 * 1024


class BodyTooLargeError(InvalidInputError):
    status = 413
    code = "body_too_large"


class SlowBodyError(InvalidInputError):
    status = 408
    code = "body_timeout"


class ClientLeftError(LocalLLMError):
    """Never seen by anyone: the connection is closed."""

    status = 499  # nginx's number for it


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


def in_time(receive: Receive, timeout_seconds: float) -> Receive:
    """The same body, which ends in an error when it is not all there in time. Long ones have longer: what has come
    counts as if it came at SLOWEST_BYTES_PER_SECOND.

    Raises: SlowBodyError.
    """
    began, size, more = time.monotonic(), 0, True

    async def receive_in_time() -> Message:
        nonlocal size, more
        if not more:  # what is waited for now is that the client leaves
            return await receive()
        allowed = timeout_seconds + size / SLOWEST_BYTES_PER_SECOND
        try:
            async with asyncio.timeout(began + allowed - time.monotonic()):
                message = await receive()
        except TimeoutError:
            raise SlowBodyError(f"the body was not all there after {allowed:.0f} s") from None
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
        return message

    return receive_in_time


async def read_body(receive: Receive, max_bytes: int, timeout_seconds: float) -> bytes:
    """The body of a request, taken straight from the server.

    Raises: BodyTooLargeError; SlowBodyError if it is not all there in time; ClientLeftError.
    """
    message = await receive()
    data: bytes = message.get("body", b"")
    if message.get("more_body"):
        try:
            async with asyncio.timeout(timeout_seconds):
                data = await _rest_of_body(data, receive, max_bytes)
        except TimeoutError:
            raise SlowBodyError(f"the body was not all there after {timeout_seconds:.0f} s") from None
    elif message["type"] == "http.disconnect":
        raise ClientLeftError("the client has left")
    if len(data) > max_bytes:
        raise BodyTooLargeError(f"the body holds more than {max_bytes} bytes")
    return data


async def _rest_of_body(data: bytes, receive: Receive, max_bytes: int) -> bytes:
    parts, size, more = [data], len(data), True
    while more and size <= max_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError("the client has left")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
    return b"".join(parts)


def refuse_declared(content_length: bytes, max_bytes: int) -> None:
    """Raises: BodyTooLargeError for a body that says itself that it is too large: not a byte of it is read."""
    if content_length.isdigit() and int(content_length) > max_bytes:
        raise BodyTooLargeError(f"the body holds {int(content_length)} bytes; at most {max_bytes} are accepted")


async def read_json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The request's body as a JSON object.

    Raises: InvalidInputError if it is none, or holds a key twice: two readers could then disagree on it.
    """
    refuse_declared(request.headers.get("content-length", "").encode(), max_bytes)
    return parse_json_object(await limited(request, max_bytes).body())


def parse_json_object(data: bytes) -> dict[str, Any]:
    try:
        value = _DECODER.decode(data.decode("utf-8"))
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
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise InvalidInputError(f"the body is nested more than {MAX_DEPTH} deep")
    if b"\\u" in data:  # half a surrogate pair can only be escaped: what is not escaped was UTF-8
        try:
            dump_json(value)
        except ValueError as error:
            raise InvalidInputError(f"the body holds what JSON cannot: {error}") from None
    return value


def dump_json(value: Any) -> bytes:
    """Raises: ValueError for what is no JSON."""
    return _ENCODER.encode(value).encode()


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidInputError(f"the body has the key {twice!r} twice", param=twice)
    return result


def _refuse_constant(name: str) -> None:
    raise InvalidInputError(f"the body holds {name}, which is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidInputError(f"the body holds what JSON cannot: the number {text[:40]} is beyond all others")
    return number


# Made once: json.loads and json.dumps make new ones at each call that asks for anything but their defaults.
_DECODER = json.JSONDecoder(object_pairs_hook=_refuse_twice, parse_constant=_refuse_constant, parse_float=_finite)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        inner = [x.values() if isinstance(x, dict) else x for x in level if isinstance(x, dict | list)]
        level = [y for values in inner for y in values if isinstance(y, dict | list)]
    return deepest
