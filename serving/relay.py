"""/v1/chat/completions and /v1/completions: between the client and the engine, with as little as can be between.

Every token of every answer passes here, so this speaks ASGI itself: routing, models of bodies and response classes
cost more than all that is done to a question that needs no context.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from local_llm.errors import LocalLLMError
from serving.answering.answer import Answer, open_answer
from serving.answering.prepare import CHAT, COMPLETION, Prepared, Question, prepare
from serving.bodies import ClientLeftError, parse_json_object, read_body
from serving.error_responses import respond, unexpected
from serving.services import Services, caller_of

PATHS = (CHAT, COMPLETION)

# A client is looked for from then on: most answers that are not streamed are faster, and need no task beside them.
LOOK_SECONDS = 0.25

JSON_TYPE, EVENT_STREAM = b"application/json", b"text/event-stream; charset=utf-8"


class Relay:
    """An ASGI application for POST to PATHS."""

    def __init__(self, services: Callable[[], Services]):
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = _Out(send)
        try:
            question = await self._question(scope, receive)
            async with _while_wanted(receive):
                await self._answer(question, out)
        except ClientLeftError:
            pass
        except LocalLLMError as error:
            await out.fail(respond(error), scope, receive)
        except Exception as error:
            await out.fail(unexpected(scope["method"], scope["path"], error), scope, receive)

    async def _question(self, scope: Scope, receive: Receive) -> Question:
        services, request = self._services(), Request(scope)
        caller = caller_of(request, services)
        limits = services.settings.server
        data = await read_body(receive, limits.max_body_bytes, limits.body_timeout_seconds)
        url = str(request.base_url).rstrip("/")
        return Question(caller, scope["path"], parse_json_object(data), url)

    async def _answer(self, question: Question, out: "_Out") -> None:
        services = self._services()
        prepared = await prepare(services, question)
        async with open_answer(services, prepared) as answer:
            if question.streams:
                await out.stream(answer)
            else:
                await out.whole(answer)


class _Out:
    """What goes back to the client."""

    def __init__(self, send: Send):
        self._send = send
        self._begun = False

    async def whole(self, answer: Answer) -> None:
        data = await answer.whole()
        length = (b"content-length", str(len(data)).encode())
        await self._begin([(b"content-type", JSON_TYPE), length, *_headers(answer.prepared)])
        await self._send({"type": "http.response.body", "body": data})

    async def stream(self, answer: Answer) -> None:
        await self._begin([(b"content-type", EVENT_STREAM), *_headers(answer.prepared)])
        async for block in answer.blocks():
            await self._send({"type": "http.response.body", "body": block, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, response: Callable, scope: Scope, receive: Receive) -> None:
        if not self._begun:
            await response(scope, receive, self._send)

    async def _begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})


def _headers(prepared: Prepared) -> list[tuple[bytes, bytes]]:
    headers = [(b"x-request-id", prepared.question.request_id.encode())]
    if prepared.retrieved:
        headers.append((b"server-timing", _timing(prepared).encode()))
        left_out = prepared.found - len(prepared.hits)
        if left_out or prepared.last_is_cut:
            headers.append(
                (b"x-context-left-out", f"passages={left_out}, cut={int(prepared.last_is_cut)}".encode())
            )
    return headers


def _timing(prepared: Prepared) -> str:
    """In milliseconds (W3C Server Timing)."""
    retrieval = f"retrieval;dur={prepared.retrieval_seconds * 1000:.1f}"
    rewritten = prepared.rewritten
    if rewritten is None or rewritten.seconds is None:
        return retrieval
    return f"rewrite;dur={rewritten.seconds * 1000:.1f}, {retrieval}"


@asynccontextmanager
async def _while_wanted(receive: Receive) -> AsyncIterator[None]:
    """Ends the block when the client has left: nobody wants what is still being generated.

    Raises: ClientLeftError.
    """
    task = asyncio.current_task()
    assert task is not None
    watch = _Watch(task, receive)
    timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, watch.begin)
    try:
        yield
    except asyncio.CancelledError:
        if watch.left and task.uncancel() == 0:
            raise ClientLeftError("the client has left") from None
        raise
    finally:
        timer.cancel()
        watch.end()


class _Watch:
    def __init__(self, task: asyncio.Task[None], receive: Receive):
        self._task = task
        self._receive = receive
        self._looking: asyncio.Task[None] | None = None
        self.left = False

    def begin(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(self._look())

    def end(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self._task.cancel()
