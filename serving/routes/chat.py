"""/v1/chat/completions and /v1/completions: through to the engine, with context and citations where asked for.

The engine's bytes pass unchanged except in answers made with context.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from local_llm.errors import LocalLLMError, UnavailableError
from serving.answering import Prepared, open_answer, prepare_chat, prepare_completion
from serving.bodies import dump_json, read_json_object
from serving.cited import Cited, cite_delta, cite_message
from serving.services import caller_of, services_of

router = APIRouter()


class ClientLeftError(LocalLLMError):
    """Never seen by anyone: the connection is closed."""

    status = 499  # nginx's number for it


EVENT_STREAM = "text/event-stream"
LOOK_SECONDS = 0.5
# One event holds one token, or a few; a line longer than this is none of vLLM's.
MAX_EVENT_BYTES = 4 * 1024**2


@router.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    services = services_of(request)
    caller = caller_of(request)
    body = await read_json_object(request, services.settings.server.max_body_bytes)
    prepared = await prepare_chat(services, caller, body)
    return await _answer(request, "/v1/chat/completions", prepared)


@router.post("/v1/completions")
async def complete(request: Request) -> Response:
    services = services_of(request)
    caller = caller_of(request)
    body = await read_json_object(request, services.settings.server.max_body_bytes)
    return await _answer(request, "/v1/completions", prepare_completion(services, caller, body))


async def _answer(request: Request, path: str, prepared: Prepared) -> Response:
    async with AsyncExitStack() as stack:
        response = await open_answer(services_of(request), path, prepared, stack)
        headers = _timing(prepared)
        if prepared.body.get("stream"):
            # The stream outlives this function, and closes the engine's response when it ends or is dropped.
            events = _events(response, prepared, str(request.base_url).rstrip("/"), stack.pop_all())
            return StreamingResponse(events, media_type=EVENT_STREAM, headers=headers)
        data = await _read_while_wanted(request, response)
        if prepared.retrieved:
            data = _cite(data, prepared, str(request.base_url).rstrip("/"))
        return Response(data, media_type="application/json", headers=headers)


async def _read_while_wanted(request: Request, response: aiohttp.ClientResponse) -> bytes:
    """The engine's whole answer. When the client has left, nobody wants it: what generates it is cancelled.

    Raises: ClientLeftError, UnavailableError.
    """
    reading = asyncio.ensure_future(response.read())
    try:
        while not (await asyncio.wait({reading}, timeout=LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientLeftError("the client has left")
        return reading.result()
    except (aiohttp.ClientError, TimeoutError):
        raise UnavailableError("the engine ended while it answered", hint="ask again") from None
    finally:
        reading.cancel()


def _cite(data: bytes, prepared: Prepared, server_url: str) -> bytes:
    answer = json.loads(data)
    for choice in answer["choices"]:
        cite_message(choice, Cited(prepared.hits, server_url, write_markers=prepared.writes_markers))
    return dump_json(answer)


async def _events(
    response: aiohttp.ClientResponse, prepared: Prepared, server_url: str, stack: AsyncExitStack
) -> AsyncIterator[bytes]:
    async with stack:
        try:
            if prepared.retrieved:
                async for event in _cited_events(response, prepared, server_url):
                    yield event
            else:
                async for block in response.content.iter_any():
                    yield block
        except (aiohttp.ClientError, TimeoutError):
            # The status has long been sent: the error can only be an event.
            error: LocalLLMError = UnavailableError("the engine ended while it answered", hint="ask again")
            yield b"data: " + dump_json(error.envelope()) + b"\n\n"


async def _cited_events(
    response: aiohttp.ClientResponse, prepared: Prepared, server_url: str
) -> AsyncIterator[bytes]:
    choices: dict[int, Cited] = {}
    async for line in _lines(response):
        if not line.startswith(b"data: {"):
            yield line
            continue
        chunk: dict[str, Any] = json.loads(line[len(b"data: ") :])
        for choice in chunk.get("choices", []):
            index = choice["index"]
            if index not in choices:
                choices[index] = Cited(prepared.hits, server_url, write_markers=prepared.writes_markers)
            cite_delta(choice, choices[index])
        yield b"data: " + dump_json(chunk) + b"\n"


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines with their ends, of any length up to MAX_EVENT_BYTES."""
    rest = b""
    async for block in response.content.iter_any():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line + b"\n"
        if len(rest) > MAX_EVENT_BYTES:
            raise aiohttp.ClientPayloadError("an event of the engine has no end")
    if rest:
        yield rest


def _timing(prepared: Prepared) -> dict[str, str]:
    """How long retrieval took, in milliseconds (W3C Server Timing)."""
    if not prepared.retrieved:
        return {}
    return {"server-timing": f"retrieval;dur={prepared.retrieval_seconds * 1000:.1f}"}
