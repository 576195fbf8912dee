"""Request bodies in and JSON out. What is ambiguous is refused, and what is sent on is written anew."""

import asyncio
import json
import math
import re
import time
from typing import Any

from starlette.requests import Request
from starlette.types import Message, Receive

from local_llm.errors import InvalidInputError, LocalLLMError

MAX_DEPTH = 64
# Of a larger body is counted what it holds before that is built, and it is read beside the event loop: 16 MiB of
# empty objects would hold up every stream for seconds.
LARGE_BYTES = 256 * 1024
# Objects, lists and fields together. As many take a quarter of a second; what people send has a few thousand.
MOST_PARTS = 300_000
# Source: 2,048 inputs of embeddings, each of as many token ids as an encoder may read.
MOST_VALUES = 3_000_000
SHOWN_CHARACTERS = 80
# In the scope of a request whose body has all come: whoever reads it needs no clock.
BODY_IS_THERE = "local_llm.body_is_there"
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')

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


async def read_body(receive: Receive, max_bytes: int, timeout_seconds: float | None) -> bytes:
    """The body of a request, taken straight from the server. `timeout_seconds` None: all of it is there.

    Raises: BodyTooLargeError; SlowBodyError if it is not all there in time; ClientLeftError.
    """
    if timeout_seconds is None:
        data = await _whole_body(receive, max_bytes)
    else:
        try:
            async with asyncio.timeout(timeout_seconds):  # also around the first piece: some clients never send one
                data = await _whole_body(receive, max_bytes)
        except TimeoutError:
            raise SlowBodyError(f"the body was not all there after {timeout_seconds:.0f} s") from None
    if len(data) > max_bytes:
        raise BodyTooLargeError(f"the body holds more than {max_bytes} bytes")
    return data


async def _whole_body(receive: Receive, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more and size <= max_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError("the client has left")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def refuse_declared(content_length: bytes, max_bytes: int) -> None:
    """Raises: BodyTooLargeError for a body that says itself that it is too large: not a byte of it is read."""
    if content_length.isdigit() and int(content_length) > max_bytes:
        raise BodyTooLargeError(f"the body holds {int(content_length)} bytes; at most {max_bytes} are accepted")


async def read_json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The request's body as a JSON object.

    Raises: InvalidInputError if it is none, or holds a key twice: two readers could then disagree on it.
    """
    refuse_declared(request.headers.get("content-length", "").encode(), max_bytes)
    return await parse_body(await limited(request, max_bytes).body())


async def parse_body(data: bytes) -> dict[str, Any]:
    """As parse_json_object, without holding up the event loop for long."""
    return parse_json_object(data) if len(data) <= LARGE_BYTES else await asyncio.to_thread(parse_json_object, data)


def parse_json_object(data: bytes) -> dict[str, Any]:
    """Raises: InvalidInputError."""
    if len(data) > LARGE_BYTES:
        _refuse_many_parts(data)
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
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _is_deep(value):
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


def _refuse_many_parts(data: bytes) -> None:
    """Counted with the texts at first, which is faster; texts that hold code or JSON are looked away from then."""
    if _holds_many(data) and _holds_many(_STRING.sub(b"", data)):
        raise InvalidInputError(
            f"the body holds more than {MOST_PARTS:,} objects, lists and fields, or {MOST_VALUES:,} values"
        )


def _holds_many(data: bytes) -> bool:
    parts = data.count(b"{") + data.count(b"[") + data.count(b":")
    return parts > MOST_PARTS or data.count(b",") > MOST_VALUES


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        shown = twice[:SHOWN_CHARACTERS]
        raise InvalidInputError(f"the body has the key {shown!r} twice", param=shown)
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


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [x.values() if isinstance(x, dict) else x for x in level]
        level = [y for values in inner for y in values if isinstance(y, dict | list)]
        if not level:
            return False
    return True
