"""HTTP on a connection: uvicorn's protocol, with what it leaves out against clients that are slow or send too much.

All is bounded: how many connections there are, how long the head of a request may take and how large it may be, how
long a client may leave an answer unread, and how long the rest of a body is received after its request was refused.
"""

import asyncio
import json
from asyncio import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from local_llm.errors import InvalidInputError, LocalLLMError, UnavailableError
from local_llm.settings import ServerSettings
from serving.bodies import BODY_IS_THERE

# A client that sends a body in one go reads the answer only then: one that was refused is heard out so long.
LINGER_SECONDS = 5.0


class HeadTooLargeError(InvalidInputError):
    status = 431
    code = "headers_too_large"


class SlowHeadError(InvalidInputError):
    status = 408
    code = "headers_timeout"


class MalformedError(InvalidInputError):
    code = "malformed_request"


class GuardedProtocol(HttpToolsProtocol):
    """`server`: our limits; all else is uvicorn's."""

    def __init__(self, server: ServerSettings, **given: Any):
        super().__init__(**given)
        self._limits = server
        self._connections_each = max(1, server.max_connections // server.processes)
        self._in_head = False
        self._head_bytes = 0  # of one that is not whole: the parser tells of a header when it has all of it
        self._head_size = 0  # of its headers, as the parser told them
        self._refused = False  # what still comes in is not looked at
        self._head_timer: TimerHandle | None = None
        self._stall_timer: TimerHandle | None = None
        self._linger_timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self._connections_each:
            self._refuse(UnavailableError(f"{self._connections_each} connections are open: no more are taken"))
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._stall_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._stall_timer = self._linger_timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_header_bytes:
                self._refuse(self._too_large())
        elif self._head_size > self._limits.max_header_bytes:
            self._refuse(self._too_large())
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()

    # What the parser calls. It may have more to tell after a refusal.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_size = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_size += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._refuse_large_head()
        if self._refused:
            return
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused:
            return
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
        self.scope[BODY_IS_THERE] = True  # type: ignore[literal-required]
        super().on_message_complete()
        if self.cycle.response_complete:
            self.cycle.more_body = False  # uvicorn leaves that, once an answer went out before the body was in

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body and not self.transport.is_closing():
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    # A client that does not read.

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self._limits.body_timeout_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    # Refusals.

    def send_400_response(self, msg: str) -> None:
        if not self._refused:
            self._refuse(MalformedError(msg))

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self._limits.header_timeout_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._head_bytes:
            seconds = self._limits.header_timeout_seconds
            self._refuse(SlowHeadError(f"the head of the request was not all there after {seconds:g} s"))
        else:
            self.transport.close()

    def _refuse_large_head(self) -> None:
        """A head that is whole. (Trailers behind a body count too: see data_received.)"""
        if self._refused:
            return
        if len(self.headers) > self._limits.max_headers:
            self._refuse(HeadTooLargeError(f"the request has more than {self._limits.max_headers} headers"))
        elif len(self.url) + self._head_size > self._limits.max_header_bytes:
            self._refuse(self._too_large())

    def _too_large(self) -> HeadTooLargeError:
        return HeadTooLargeError(
            f"the head of the request holds more than {self._limits.max_header_bytes} bytes",
            hint="what is long belongs into the body",
        )

    def _refuse(self, error: LocalLLMError) -> None:
        """Tells the client and closes the connection."""
        self._refused = True
        if self.transport.is_closing():
            return
        body = json.dumps(error.envelope()).encode()
        head = [
            STATUS_LINE[error.status],
            b"content-type: application/json\r\n",
            b"content-length: %d\r\n" % len(body),
            b"retry-after: 2\r\n" if isinstance(error, UnavailableError) else b"",
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join([*head, body]))
        self.transport.close()
