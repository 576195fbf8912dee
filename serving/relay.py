"""/v1/chat/completions and /v1/completions: between the client and the engine, with as little as can be between.

Every token of every answer passes here, so this speaks ASGI itself: routing, models of bodies and response classes
cost more than all that is done to a question that needs no context.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from local_llm.errors import LocalLLMError, UnavailableError
from serving.answering.answer import Answer, open_answer
from serving.answering.events import END
from serving.answering.prepare import CHAT, COMPLETION, Prepared, Question, prepare
from serving.bodies import ClientLeftError, dump_json, parse_json_object, read_body, refuse_declared
from serving.error_responses import respond, unexpected
from serving.services import Services, caller_of
from serving.telemetry.record import Headers, Record

PATHS = (CHAT, COMPLETION)

# A client is looked for from then on: most answers that are not streamed are faster, and need no task beside them.
LOOK_SECONDS = 0.25

JSON_TYPE, EVENT_STREAM = b"application/json", b"text/event-stream; charset=utf-8"


class Relay:
    """An ASGI application for POST to PATHS."""

    def __init__(self, services: Callable[[], Services]):
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services()
        record = services.observer.begin(scope, scope["path"])
        out = _Out(send, services, record)
        try:
            question = await self._question(services, record, scope, receive)
            async with _while_wanted(receive):
                await self._answer(services, question, out)
        except ClientLeftError:
            record.left = True
        except LocalLLMError as error:
            record.note(error)
            await out.fail(respond(error))
        except asyncio.CancelledError:
            if not services.draining:
                raise
            await out.cut()
        except Exception as error:
            await out.fail(unexpected(record, error))
        finally:
            services.observer.end(record)

    async def _question(self, services: Services, record: Record, scope: Scope, receive: Receive) -> Question:
        request = Request(scope)
        record.caller = caller = caller_of(request, services)
        limits = services.settings.server
        refuse_declared(request.headers, limits.max_body_bytes)
        data = await read_body(receive, limits.max_body_bytes, limits.body_timeout_seconds)
        url = str(request.base_url).rstrip("/")
        body = parse_json_object(data)
        return Question(
            caller,
            scope["path"],
            body,
            url,
            request_id=record.request_id,
            asked_at=record.began,
            span=record.span,
        )

    async def _answer(self, services: Services, question: Question, out: "_Out") -> None:
        prepared = await prepare(services, question)
        out.record.model, out.record.strategy = prepared.target.model, prepared.strategy
        async with open_answer(services, prepared) as answer:
            out.record.usage = answer.usage
            if question.streams:
                await out.stream(answer)
            else:
                await out.whole(answer)


class _Out:
    """What goes back to the client."""

    def __init__(self, send: Send, services: Services, record: Record):
        self._send = send
        self._services = services
        self._streaming = False
        self.record = record

    async def whole(self, answer: Answer) -> None:
        data = await answer.whole()
        length = (b"content-length", str(len(data)).encode())
        await self._begin(200, [(b"content-type", JSON_TYPE), length, *_timing(answer.prepared)])
        await self._send({"type": "http.response.body", "body": data})

    async def stream(self, answer: Answer) -> None:
        await self._begin(200, [(b"content-type", EVENT_STREAM), *_timing(answer.prepared)])
        self._streaming = True
        async for block in answer.blocks():
            await self._send({"type": "http.response.body", "body": block, "more_body": True})
        self.record.first_token_seconds = answer.first_seconds
        self._streaming = False
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, response: JSONResponse) -> None:
        if not self.record.status:
            await self._begin(response.status_code, response.raw_headers)
            await self._send({"type": "http.response.body", "body": response.body})

    async def cut(self) -> None:
        """Ends an answer that outlasts the server."""
        error = UnavailableError("the server is being stopped", hint="ask again")
        self.record.note(error)
        if self._streaming:
            event = b"data: " + dump_json(error.envelope()) + END
            await self._send({"type": "http.response.body", "body": event})
        else:
            await self.fail(respond(error))

    async def _begin(self, status: int, headers: Headers) -> None:
        record, services = self.record, self._services
        record.status = status
        ours = record.headers(services.organization) + services.limits.headers(record.caller)
        await self._send({"type": "http.response.start", "status": status, "headers": headers + ours})


def _timing(prepared: Prepared) -> Headers:
    if not prepared.retrieved:
        return []
    duration = f"retrieval;dur={prepared.retrieval_seconds * 1000:.1f}"  # in milliseconds (W3C Server Timing)
    return [(b"server-timing", duration.encode())]


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
