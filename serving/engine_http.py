"""HTTP to an engine, over its Unix socket or its URL, for the way that every token takes.

Why not a library: aiohttp's client, which does this well, takes 103 µs of processor time a question and 24 µs a
streamed event where this takes about 10 and 9, and that was most of what the gateway took. This knows what vLLM and
a proxy before it need, and nothing else: no redirects, no cookies, no compression.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from serving.engine_connection import BrokenError, ConnectError, Connection, EngineResponse

# A machine that is there accepts a connection within milliseconds, also in a network of several rooms.
CONNECT_TIMEOUT_SECONDS = 3.0
# Idle connections beyond these are closed.
MOST_IDLE = 256

NO_HEADERS: Mapping[str, str] = {}
_LINE_ENDS = frozenset("\r\n\0")
_PATH = "/%:@!$&'()*+,;=~"  # may stand in one as it is


@dataclass(frozen=True)
class Address:
    """Where an engine listens: the Unix socket `socket`, else `host` and `port`, with `tls` for https.

    Idle connections are closed after `keep_alive_seconds`: before the engine does, for a question that meets a
    closing connection fails.
    """

    keep_alive_seconds: float
    socket: Path | None = None
    host: str = "engine"
    port: int = 0
    tls: ssl.SSLContext | None = None
    netloc: str = "engine"  # as the Host header says it
    prefix: str = ""  # before all paths

    @staticmethod
    def of_url(url: str, tls: ssl.SSLContext | None, keep_alive_seconds: float) -> "Address":
        parts = urlsplit(url)
        return Address(
            keep_alive_seconds,
            host=parts.hostname or "",
            port=parts.port or (80 if tls is None else 443),
            tls=tls,
            netloc=parts.netloc.encode("idna").decode(),
            prefix=quote(parts.path.rstrip("/"), safe=_PATH),
        )


class EngineHttp:
    """Connections to one engine, opened as they are needed and used again. All on one event loop."""

    def __init__(self, address: Address, headers: Mapping[str, str] = NO_HEADERS):
        """`headers` go with every request."""
        self._address = address
        self._heads: dict[tuple[str, str], bytes] = {}
        self._common = _lines({"host": address.netloc, "accept": "*/*", **headers})
        self._open: set[Connection] = set()
        self._idle: dict[Connection, float] = {}  # since when; the longest first

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        timeout_seconds: float,
    ) -> EngineResponse:
        """An open answer, of whatever status: read it to its end or close it. The time is for all of it.

        A request over a connection that was idle and turns out to be closed is sent again over a new one, if it
        cannot have been processed or only asks (GET).

        Raises: ConnectError, BrokenError, TimeoutError.
        """
        data = self._head(method, path) + b"content-length: %d\r\n%b\r\n" % (len(body), _lines(headers)) + body
        connection = self._take()
        if connection is not None:
            try:
                return await connection.ask(data, timeout_seconds)
            except BrokenError as error:
                if not error.may_repeat or not (error.unsent or method == "GET"):
                    raise
        connection = await self._connect(min(CONNECT_TIMEOUT_SECONDS, timeout_seconds))
        return await connection.ask(data, timeout_seconds)

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort(BrokenError("the gateway is closing"))

    def _head(self, method: str, path: str) -> bytes:
        """All lines but those of a request's own. Paths are ours: there are a handful."""
        head = self._heads.get((method, path))
        if head is None:
            kind = b"content-type: application/json\r\n" if method == "POST" else b""
            line = f"{method} {self._address.prefix}{path} HTTP/1.1\r\n".encode()
            head = self._heads[method, path] = line + self._common + kind
        return head

    def _take(self) -> Connection | None:
        """The idle connection that was used last; None if there is none that can be trusted."""
        since = asyncio.get_running_loop().time() - self._address.keep_alive_seconds
        while self._idle:
            connection, idle_since = self._idle.popitem()
            if not connection.is_closing and idle_since >= since:
                return connection
            connection.close()
        return None

    async def _connect(self, timeout_seconds: float) -> Connection:
        loop, address = asyncio.get_running_loop(), self._address

        def made() -> Connection:
            return Connection(loop, self._put_back, self._forget)

        try:
            async with asyncio.timeout(timeout_seconds):
                if address.socket is not None:
                    _, connection = await loop.create_unix_connection(made, str(address.socket))
                else:
                    _, connection = await loop.create_connection(made, address.host, address.port, ssl=address.tls)
        except (OSError, TimeoutError) as error:  # TLS that is not to be trusted among them
            raise ConnectError(str(error) or f"no connection within {timeout_seconds} s") from None
        if not connection.is_closing:
            self._open.add(connection)
        return connection

    def _put_back(self, connection: Connection) -> None:
        now = asyncio.get_running_loop().time()
        self._idle[connection] = now
        while True:
            oldest = next(iter(self._idle))
            if len(self._idle) <= MOST_IDLE and now - self._idle[oldest] <= self._address.keep_alive_seconds:
                return
            del self._idle[oldest]
            oldest.close()

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)


def _lines(headers: Mapping[str, str]) -> bytes:
    """Raises: ValueError for one that would be more than one line."""
    if not headers:
        return b""
    if any(_LINE_ENDS & set(name + value) for name, value in headers.items()):
        raise ValueError(f"a header holds the end of a line: {', '.join(headers)}")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
