"""/v1/chat/completions and /v1/completions: between the client and the engine, with as little as can be between.

Every token of every answer passes here, so this speaks ASGI itself: routing, models of bodies and response classes
cost more than all that is done to a question that needs no context.
"""

import asyncio
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from local_llm.errors import LocalLLMError, UnavailableError
from serving.answering.answer import Answer, open_answer
from serving.answering.events import END
from serving.answering.prepare import CHAT, COMPLETION, Prepared, Question, identity_of, prepare
from serving.bodies import BODY_IS_THERE, ClientLeftError, dump_json, parse_body, read_body, refuse_declared
from serving.error_responses import respond, unexpected
from serving.services import Services
from serving.telemetry.record import Headers, Record
from serving.wanted import WhileWanted

PATHS = (CHAT, COMPLETION)

JSON_TYPE, EVENT_STREAM = b"application/json", b"text/event-stream; charset=utf-8"

# Of a chat that asked to be kept, in a project whose chats take all that they may.
NOT_KEPT = (b"x-chat-not-kept", b"quota")


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
            with WhileWanted(receive):
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
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host")
        record.caller = caller = services.access.caller(
            headers.get(b"authorization"), host=host, origin=headers.get(b"origin")
        )
        limits = services.settings.server
        refuse_declared(headers.get(b"content-length", b""), limits.max_body_bytes)
        timeout_seconds = None if BODY_IS_THERE in scope else limits.body_timeout_seconds
        data = await read_body(receive, limits.max_body_bytes, timeout_seconds)
        return Question(
            caller,
            scope["path"],
            await parse_body(data),
            f"{scope['scheme']}://{(host or b'').decode('latin-1')}",
            **identity_of(record),
        )

    async def _answer(self, services: Services, question: Question, out: "_Out") -> None:
        if question.path == CHAT and services.chats.wants(question):
            if services.chats.has_room(question.caller):
                out.keep = services.chats.add
            else:
                out.more.append(NOT_KEPT)
        prepared = await prepare(services, question)
        out.record.model, out.record.strategy = prepared.target.model, prepared.strategy
        async with open_answer(services, prepared, record=out.record) as answer:
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
        self.more: Headers = []
        # Called with all that was sent right before its end: behind that, this may be cancelled as left.
        self.keep: Callable[[Answer, list[bytes]], None] | None = None

    async def whole(self, answer: Answer) -> None:
        data = await answer.whole()
        length = (b"content-length", str(len(data)).encode())
        await self._begin(200, [(b"content-type", JSON_TYPE), length, *headers_of(answer.prepared)])
        if self.keep is not None:
            self.keep(answer, [data])
        await self._send({"type": "http.response.body", "body": data})

    async def stream(self, answer: Answer) -> None:
        sent: list[bytes] = []
        async for block in answer.blocks():
            if not self._streaming:  # until the engine has begun, it may refuse: that is a status of its own
                await self._begin_stream(answer)
            await self._send({"type": "http.response.body", "body": block, "more_body": True})
            if self.keep is not None:
                sent.append(block)
        if not self._streaming:
            await self._begin_stream(answer)
        if self.keep is not None:
            self.keep(answer, sent)
        self._streaming = False
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin_stream(self, answer: Answer) -> None:
        await self._begin(200, [(b"content-type", EVENT_STREAM), *headers_of(answer.prepared)])
        self._streaming = True

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
        ours = record.headers(services.organization) + services.limits.headers(record.caller) + self.more
        await self._send({"type": "http.response.start", "status": status, "headers": headers + ours})


def headers_of(prepared: Prepared) -> Headers:
    """What tells of a question beside its answer, for ASGI."""
    if not prepared.retrieved:
        return []
    headers = [(b"server-timing", _timing(prepared).encode())]
    left_out = prepared.found - len(prepared.hits)
    if left_out or prepared.last_is_cut:
        headers.append((b"x-context-left-out", f"passages={left_out}, cut={int(prepared.last_is_cut)}".encode()))
    return headers


def _timing(prepared: Prepared) -> str:
    """In milliseconds (W3C Server Timing). Encoding and search are parts of the retrieval."""
    took = {
        "rewrite": None if prepared.rewritten is None else prepared.rewritten.seconds,
        "retrieval": prepared.retrieval_seconds,
        "encode": prepared.encode_seconds,
        "search": prepared.search_seconds,
    }
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in took.items() if seconds is not None)
