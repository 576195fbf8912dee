"""What goes back to the client of POST /v1/responses."""

from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from local_llm.permissions import Caller
from serving.answering.prepare import Prepared
from serving.bodies import ClientLeftError, dump_json
from serving.relay import EVENT_STREAM, JSON_TYPE, headers_of
from serving.responses.asking import ask, stream, whole
from serving.responses.requests import CreateResponse
from serving.services import Services
from serving.telemetry.record import Record, record_of
from serving.wanted import WhileWanted


class Reply(Response):
    """Asks the model while it is sent, so that a client that leaves ends that too, at any point of it.

    Until the first byte is sent errors are raised: they become the API's own.
    """

    def __init__(self, services: Services, caller: Caller, asked: CreateResponse, server_url: str):
        self.background = None
        self._services = services
        self._caller = caller
        self._asked = asked
        self._server_url = server_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = record_of(scope)
        try:
            with WhileWanted(receive):
                await (self._stream(send, record) if self._asked.stream else self._whole(send, record))
        except ClientLeftError:
            record.left = True

    async def _whole(self, send: Send, record: Record) -> None:
        asking = await ask(self._services, self._caller, self._asked, self._server_url, record=record)
        data = await whole(self._services, asking)
        length = (b"content-length", str(len(data)).encode())
        await _begin(send, JSON_TYPE, asking.prepared, length)
        await send({"type": "http.response.body", "body": data})

    async def _stream(self, send: Send, record: Record) -> None:
        asking = await ask(self._services, self._caller, self._asked, self._server_url, record=record)
        begun = False
        async with aclosing(stream(self._services, asking)) as events:
            async for event in events:
                if not begun:
                    await _begin(send, EVENT_STREAM, asking.prepared)
                    begun = True
                data = b"event: %b\ndata: %b\n\n" % (event["type"].encode(), dump_json(event))
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _begin(send: Send, content_type: bytes, prepared: Prepared, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", content_type), *more, *headers_of(prepared)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
