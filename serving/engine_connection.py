"""One connection to an engine, and the answer that comes over it (HTTP/1.1, parsed by httptools).

All is bounded. A client that reads slowly has its engine wait: no more than HIGH_WATER_BYTES and one read from the
socket are held for it. Heads, chunk sizes and trailers without end break the connection.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httptools

HIGH_WATER_BYTES = 64 * 1024
# So much may come in without a byte of a body: heads of answers take a few hundred.
MAX_OVERHEAD_BYTES = 64 * 1024
# All alternatives of an answer with all their log-probabilities are some MB.
MAX_WHOLE_BYTES = 256 * 1024**2


class ConnectError(Exception):
    """No connection came about: nothing was sent."""


class BrokenError(Exception):
    """The connection ended early, or what came over it was no answer.

    `may_repeat`: nothing of an answer had come. `unsent`: a part of the request never left: nobody processed it.
    """

    def __init__(self, message: str, *, may_repeat: bool = False, unsent: bool = False):
        super().__init__(message)
        self.may_repeat = may_repeat
        self.unsent = unsent


class EngineResponse:
    """An answer whose head is there. Read it to its end, or close it: that ends what the engine does for it."""

    def __init__(self, connection: "Connection", loop: asyncio.AbstractEventLoop):
        self.status = 0
        self._connection: Connection | None = connection  # until the end of the answer
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False
        self._failure: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def readany(self) -> bytes:
        """What has come since the last call, waited for if need be; nothing at the end.

        Raises: BrokenError, TimeoutError.
        """
        while not self._parts:
            if self._ended:
                if self._failure is not None:
                    raise self._failure
                return b""
            await self._news()
        parts, self._parts, self._size = self._parts, [], 0
        if self._connection is not None:
            self._connection.resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read(self) -> bytes:
        """All of it. Raises: BrokenError, TimeoutError."""
        data = await self.readany()
        if self._ended and not self._parts and self._failure is None:
            return data  # most answers come in one piece
        pieces, size = [data], len(data)
        while piece := await self.readany():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_WHOLE_BYTES:
                self.close()
                raise BrokenError(f"an answer of the engine holds more than {MAX_WHOLE_BYTES} bytes")
        return b"".join(pieces)

    async def json(self) -> Any:
        """Raises: BrokenError, also for what is none; TimeoutError."""
        data = await self.read()
        try:
            return json.loads(data)
        except ValueError as error:
            raise BrokenError(f"an answer of the engine is no JSON: {error}") from None

    def close(self) -> None:
        """An answer that has not ended takes its connection along."""
        if self._connection is not None:
            self._connection.abort(BrokenError("the answer was closed"))

    # What the connection calls.

    async def head(self) -> None:
        while not self.status and not self._ended:
            await self._news()
        if self._failure is not None and not self.status:
            raise self._failure

    def begin(self, status: int) -> None:
        self.status = status
        self._tell()

    def feed(self, part: bytes) -> bool:
        """Returns: whether more should wait."""
        self._parts.append(part)
        self._size += len(part)
        self._tell()
        return self._size > HIGH_WATER_BYTES

    def end(self, failure: Exception | None = None) -> None:
        self._ended, self._failure, self._connection = True, failure, None
        self._tell()

    async def _news(self) -> None:
        self._waiting = self._loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _tell(self) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


class Connection(asyncio.Protocol):
    """One question at a time. `free` is called when it can take another, `lost` when it has ended."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        free: Callable[["Connection"], None],
        lost: Callable[["Connection"], None],
    ):
        self._loop = loop
        self._free = free
        self._lost = lost
        self._response: EngineResponse | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure: Exception | None = None  # why we broke it
        self._paused = False
        self._has_length = False  # whether the answer itself tells where it ends
        self._overhead_bytes = 0

    async def ask(self, request: bytes, timeout_seconds: float) -> EngineResponse:
        """The answer, once its head is there. `timeout_seconds` are for all of it.

        Raises: BrokenError, TimeoutError.
        """
        if self._transport.is_closing():
            raise BrokenError("the engine closed the connection", may_repeat=True, unsent=True)
        self._response = response = EngineResponse(self, self._loop)
        self._has_length, self._overhead_bytes = False, 0
        self._timer = self._loop.call_later(timeout_seconds, self.abort, TimeoutError())
        self._transport.write(request)
        try:
            await response.head()
        except BaseException:
            response.close()
            raise
        return response

    def abort(self, failure: Exception | None = None) -> None:
        """Ends it now: the engine sees that, and ends what it does."""
        self._failure = self._failure or failure
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()

    def resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    @property
    def is_closing(self) -> bool:
        return self._transport.is_closing()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        if self._response is None:
            self.abort()  # nobody asked
            return
        self._overhead_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.abort(BrokenError(f"what the engine sent is no HTTP: {error}"))
            return
        if self._overhead_bytes > MAX_OVERHEAD_BYTES:
            self.abort(BrokenError(f"the engine sent {self._overhead_bytes} bytes without a byte of an answer"))

    def connection_lost(self, error: Exception | None) -> None:
        self._lost(self)
        response = self._response
        if response is None:
            return
        untold_end = error is None and response.status and not self._has_length and self._failure is None
        failure = self._failure or BrokenError(
            f"the connection to the engine ended: {error or 'closed by the engine'}",
            may_repeat=not response.status and not self._overhead_bytes,
            unsent=isinstance(error, BrokenPipeError),
        )
        self._finish(response, None if untold_end else failure)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length" or (name == b"transfer-encoding" and value.lower().endswith(b"chunked")):
            self._has_length = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._response is None:
            self.abort()  # a second answer to one question
        elif status >= 200:
            self._response.begin(status)

    def on_body(self, part: bytes) -> None:
        self._overhead_bytes = 0
        if self._response is not None and self._response.feed(part) and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        response = self._response
        if response is None or not response.status:
            return  # only "100 Continue": the answer is still to come
        self._finish(response, None)
        self.resume()
        # Answered before it was asked to the end: the rest would stand before the next question.
        if self._parser.should_keep_alive() and not self._transport.get_write_buffer_size():
            self._free(self)
        else:
            self._transport.close()

    def _finish(self, response: EngineResponse, failure: Exception | None) -> None:
        self._response = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        response.end(failure)
