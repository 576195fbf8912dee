"""/v1/chat/completions and /v1/completions: between the client and the engine, with as little as can be between.

Every token of every answer passes here, so this speaks ASGI itself: routing, models of bodies and response classes
cost more than all that is done to a question that needs no context.
"""

from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from local_llm.errors import LocalLLMError
from serving.answering.answer import Answer, open_answer
from serving.answering.prepare import CHAT, COMPLETION, Prepared, Question, prepare
from serving.bodies import ClientLeftError, parse_json_object, read_body
from serving.error_responses import respond, unexpected
from serving.services import Services
from serving.wanted import while_wanted

PATHS = (CHAT, COMPLETION)

JSON_TYPE, EVENT_STREAM = b"application/json", b"text/event-stream; charset=utf-8"


class Relay:
    """An ASGI application for POST to PATHS."""

    def __init__(self, services: Callable[[], Services]):
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = _Out(send)
        try:
            question = await self._question(scope, receive)
            async with while_wanted(receive):
                await self._answer(question, out)
        except ClientLeftError:
            pass
        except LocalLLMError as error:
            await out.fail(respond(error), scope, receive)
        except Exception as error:
            await out.fail(unexpected(scope["method"], scope["path"], error), scope, receive)

    async def _question(self, scope: Scope, receive: Receive) -> Question:
        services = self._services()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host")
        caller = services.access.caller(headers.get(b"authorization"), host=host, origin=headers.get(b"origin"))
        limits = services.settings.server
        data = await read_body(receive, limits.max_body_bytes, limits.body_timeout_seconds)
        url = f"{scope['scheme']}://{(host or b'').decode('latin-1')}"
        return Question(caller, scope["path"], parse_json_object(data), url)

    async def _answer(self, question: Question, out: "_Out") -> None:
        services = self._services()
        if question.path == CHAT and services.chats.wants(question):
            out.keep = services.chats.add
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
        # Called with all that was sent right before its end: behind that, this may be cancelled as left.
        self.keep: Callable[[Answer, list[bytes]], None] | None = None

    async def whole(self, answer: Answer) -> None:
        data = await answer.whole()
        length = (b"content-length", str(len(data)).encode())
        await self._begin([(b"content-type", JSON_TYPE), length, *headers_of(answer.prepared)])
        if self.keep is not None:
            self.keep(answer, [data])
        await self._send({"type": "http.response.body", "body": data})

    async def stream(self, answer: Answer) -> None:
        await self._begin([(b"content-type", EVENT_STREAM), *headers_of(answer.prepared)])
        sent: list[bytes] = []
        async for block in answer.blocks():
            await self._send({"type": "http.response.body", "body": block, "more_body": True})
            if self.keep is not None:
                sent.append(block)
        if self.keep is not None:
            self.keep(answer, sent)
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, response: Callable, scope: Scope, receive: Receive) -> None:
        if not self._begun:
            await response(scope, receive, self._send)

    async def _begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})


def headers_of(prepared: Prepared) -> list[tuple[bytes, bytes]]:
    """What tells of a question beside its answer, for ASGI."""
    headers = [(b"x-request-id", prepared.question.request_id.encode())]
    if prepared.retrieved:  # in milliseconds (W3C Server Timing)
        duration = f"retrieval;dur={prepared.retrieval_seconds * 1000:.1f}"
        headers.append((b"server-timing", duration.encode()))
    return headers
