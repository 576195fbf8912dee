"""The client of engines against servers that do what they like with a connection."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from serving import engine_http
from serving.engine_connection import (
    HIGH_WATER_BYTES,
    MAX_OVERHEAD_BYTES,
    BrokenError,
    ConnectError,
    EngineResponse,
)
from serving.engine_http import Address, EngineHttp

from .test_remote_engines import self_signed

SECONDS = 20.0
ONE = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    def call(what: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(what, 60))

    return call


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


class Server:
    """Does `handle` with each connection, and knows them."""

    def __init__(self, path: Path, handle: Handler):
        self._path, self._handle = path, handle
        self.connections = 0
        self.gone = asyncio.Event()  # a client has left
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self.writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            await self._handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head + await reader.readexactly(int(length.partition(b":")[2]))


def saying(*pieces: bytes, close: bool = False) -> Handler:
    """Answers each request with these pieces, a moment between them."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if close:
                return

    return handle


def client_of(path: Path, keep_alive_seconds: float = 15.0) -> EngineHttp:
    return EngineHttp(Address(keep_alive_seconds, path))


async def post(client: EngineHttp, body: bytes = b"{}", timeout_seconds: float = SECONDS) -> EngineResponse:
    return await client.request("POST", "/v1/x", body, timeout_seconds=timeout_seconds)


async def said(client: EngineHttp) -> bytes:
    return await (await post(client)).read()


FRAMINGS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=1\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n"
    b"0\r\ntrailer: a\r\n\r\n",
    "until its end": b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello world",
    "after 100": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world",
    "1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 11\r\n\r\nhello world",
}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_bodies_in_every_framing_split_at_every_byte(run, path: Path, framing: str) -> None:
    answer, closes = FRAMINGS[framing], framing == "until its end"
    cuts = iter(range(1, len(answer)))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            cut = next(cuts)
            writer.write(answer[:cut])
            await asyncio.sleep(0.001)
            writer.write(answer[cut:])
            if closes:
                return

    async def whole() -> None:
        async with Server(path, handle) as server:
            client = client_of(path)
            for _ in range(len(answer) - 1):
                assert await said(client) == b"hello world"
            assert server.connections == (len(answer) - 1 if framing in ("until its end", "1.0") else 1)
            client.close()

    run(whole())


def test_byte_by_byte_nothing_is_held_back(run, path: Path) -> None:
    async def whole() -> None:
        go = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(3):
                writer.write(b"3\r\none\r\n")
                await go.wait()
                go.clear()
            writer.write(b"0\r\n\r\n")

        async with Server(path, handle):
            client = client_of(path)
            response = await post(client)
            for _ in range(3):
                assert await response.readany() == b"one"
                go.set()
            assert await response.readany() == b""
            client.close()

    run(whole())


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_premature_end_is_told_after_what_had_come(run, path: Path, framing: str) -> None:
    answer = FRAMINGS[framing]
    body_begins = answer.index(b"hello")

    async def whole() -> None:
        for cut in range(body_begins + 1, len(answer)):
            async with Server(path, saying(answer[:cut], close=True)):
                client = client_of(path)
                response = await post(client)
                got: list[bytes] = []
                with pytest.raises(BrokenError, match="ended") as caught:
                    await read_into(got, response)
                assert got
                assert b"hello world".startswith(b"".join(got))
                assert not caught.value.may_repeat
                with pytest.raises(BrokenError):
                    await response.readany()
                client.close()

    run(whole())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_what_is_no_answer_breaks_the_connection(run, path: Path, answer: bytes) -> None:
    async def whole() -> None:
        async with Server(path, saying(answer, close=True)) as server:
            client = client_of(path)
            with pytest.raises(BrokenError):
                await post(client)
            assert server.connections == 1  # a question that may have been processed is not asked again
            client.close()

    run(whole())


LINE = b"x-a: " + b"a" * 1000 + b"\r\n"
FLOODS = {
    "headers": (b"HTTP/1.1 200 OK\r\n", LINE),
    "a header without end": (b"HTTP/1.1 200 OK\r\nx-a: ", b"a" * 1000),
    "a chunk's extensions": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;", b"a" * 1000),
    "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\n", LINE),
    "answers to come": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_are_cut(run, path: Path, flood: str) -> None:
    begin, more = FLOODS[flood]

    async def whole() -> None:
        sent = 0

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await read_request(reader)
            writer.write(begin)
            while True:
                writer.write(more)
                sent += len(more)
                await writer.drain()

        async with Server(path, handle) as server:
            client = client_of(path)
            with pytest.raises(BrokenError):
                await said(client)
            await server.gone.wait()
            assert sent < 2 * 1024**2 + MAX_OVERHEAD_BYTES
            client.close()

    run(whole())


def test_large_headers_of_a_real_proxy_pass(run, path: Path) -> None:
    async def whole() -> None:
        async with Server(path, saying(b"HTTP/1.1 200 OK\r\n" + LINE * 30, b"content-length: 3\r\n\r\none")):
            client = client_of(path)
            assert await said(client) == b"one"
            client.close()

    run(whole())


def test_a_slow_reader_has_the_engine_wait(run, path: Path) -> None:
    size = 64 * 1024**2

    async def whole() -> None:
        sent = 0

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            while sent < size:
                writer.write(b"a" * 65536)
                await writer.drain()
                sent += 65536
            await reader.read()

        async with Server(path, handle):
            client = client_of(path)
            response = await post(client)
            await asyncio.sleep(0.5)
            held = sent
            assert held <= 4 * 1024**2
            assert response._size <= HIGH_WATER_BYTES + 256 * 1024
            assert sum([len(piece) async for piece in pieces(response)]) == size
            assert len(client._idle) == 1  # the connection is as good as before
            client.close()

    run(whole())


async def read_into(got: list[bytes], response: EngineResponse) -> None:
    while piece := await response.readany():
        got.append(piece)


async def pieces(response: EngineResponse) -> Any:
    while piece := await response.readany():
        yield piece


def test_who_leaves_takes_the_connection_along_within_a_moment(run, path: Path) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        while True:
            if not writer.transport.is_closing():
                writer.write(b"")
            await asyncio.sleep(0.01)
            if reader.at_eof():
                raise ConnectionResetError

    async def whole() -> None:
        async with Server(path, handle) as server:
            client = client_of(path)
            asking = asyncio.create_task(post(client))
            await asyncio.sleep(0.1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            async with asyncio.timeout(1):
                await server.gone.wait()
            assert not client._open
            client.close()

    run(whole())


def test_closing_an_answer_ends_it_and_reading_it_to_its_end_does_not(run, path: Path) -> None:
    async def whole() -> None:
        async with Server(path, saying(FRAMINGS["chunked"][:-20])) as server:
            client = client_of(path)
            response = await post(client)
            response.close()
            response.close()
            with pytest.raises(BrokenError):
                await response.read()
            assert not client._open
            client.close()
        async with Server(path, saying(ONE)) as server:
            client = client_of(path)
            for _ in range(3):
                response = await post(client)
                assert await response.read() == b"one"
                response.close()
            assert server.connections == 1
            client.close()

    run(whole())


def test_too_late_is_told_as_that(run, path: Path) -> None:
    async def whole() -> None:
        async with Server(path, saying(FRAMINGS["chunked"][:60])):
            client = client_of(path)
            response = await post(client, timeout_seconds=0.2)
            assert await response.readany() == b"hello"
            with pytest.raises(TimeoutError):
                await response.readany()
            assert not client._open
            client.close()
        async with Server(path, saying()):
            client = client_of(path)
            with pytest.raises(TimeoutError):
                await post(client, timeout_seconds=0.1)
            client.close()

    run(whole())


def test_connections_are_used_again_but_not_beyond_their_time(run, path: Path) -> None:
    async def whole() -> None:
        async with Server(path, saying(ONE)) as server:
            client = client_of(path, keep_alive_seconds=0.2)
            for _ in range(5):
                assert await said(client) == b"one"
            assert server.connections == 1
            await asyncio.sleep(0.3)
            assert await said(client) == b"one"
            assert server.connections == 2
            assert await asyncio.gather(*(said(client) for _ in range(8))) == [b"one"] * 8
            assert server.connections == 9
            client.close()

    run(whole())


def test_idle_connections_are_bounded(run, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_http, "MOST_IDLE", 4)

    async def whole() -> None:
        async with Server(path, saying(ONE)):
            client = client_of(path)
            await asyncio.gather(*(said(client) for _ in range(20)))
            await asyncio.sleep(0.1)
            assert len(client._open) == len(client._idle) == 4
            client.close()
            await asyncio.sleep(0.1)
            assert not client._open
            assert not client._idle

    run(whole())


@pytest.mark.parametrize(
    "after", [b"more", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo", b"HTTP/1.1 200 OK\r\n\r\n"]
)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_nobody_asked_for_is_never_an_answer(run, path: Path, after: bytes, at_once: bool) -> None:
    """Otherwise one client would read what was meant for another."""

    async def whole() -> None:
        async with Server(path, saying(*([ONE + after] if at_once else [ONE, after]))) as server:
            client = client_of(path)
            assert await said(client) == b"one"
            await asyncio.sleep(0.1)
            assert not client._open
            assert await said(client) == b"one"
            assert server.connections == 2
            client.close()

    run(whole())


def test_a_connection_answered_before_its_request_was_through_is_not_used_again(run, path: Path) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\none"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await asyncio.sleep(5)

    async def whole() -> None:
        async with Server(path, handle):
            client = client_of(path)
            response = await post(client, b"a" * 32 * 1024**2)
            assert (response.status, await response.read()) == (413, b"one")
            assert not client._idle
            client.close()

    run(whole())


def once_then_closing(reads: bool) -> Handler:
    """Answers one request a connection. Then it closes it: at once, or when the next one has been read."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(ONE)
        if reads:
            await read_request(reader)

    return handle


def test_an_idle_connection_that_the_engine_closed_is_no_failure(run, path: Path) -> None:
    async def whole() -> None:
        async with Server(path, once_then_closing(reads=False)) as server:
            client = client_of(path)
            for number in range(1, 6):
                assert await said(client) == b"one"
                await asyncio.sleep(0.02)
                assert server.connections == number
            client.close()

    run(whole())


def test_a_question_that_was_read_is_not_asked_twice(run, path: Path) -> None:
    async def whole() -> None:
        async with Server(path, once_then_closing(reads=True)) as server:
            client = client_of(path)
            assert await said(client) == b"one"
            with pytest.raises(BrokenError):
                await said(client)
            assert server.connections == 1
            client.close()

    run(whole())


def test_a_question_that_never_left_goes_over_a_new_connection(run, path: Path) -> None:
    """The engine closed the connection in the very moment: the system refuses to take the request."""

    async def whole() -> None:
        async with Server(path, once_then_closing(reads=False)) as server:
            client = client_of(path)
            first = await post(client)
            assert await first.read() == b"one"
            while not server.writers[0].transport.is_closing():
                await asyncio.sleep(0)
            assert await said(client) == b"one"
            assert server.connections == 2
            client.close()

    run(whole())


def test_what_only_asks_is_asked_again(run, path: Path) -> None:
    async def whole() -> None:
        async with Server(path, once_then_closing(reads=True)) as server:
            client = client_of(path)
            for connections in (1, 2, 3):
                response = await client.request("GET", "/health", timeout_seconds=SECONDS)
                assert (response.status, await response.read()) == (200, b"one")
                assert server.connections == connections
            client.close()

    run(whole())


def test_nobody_there_is_told_as_that(run, path: Path) -> None:
    async def whole() -> None:
        client = client_of(path)
        with pytest.raises(ConnectError):
            await post(client)
        path.touch()
        with pytest.raises(ConnectError):
            await post(client)

    run(whole())


def test_over_tls_with_a_private_ca(run, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate, key)
    asked: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            asked.append(await read_request(reader))
            for piece in (FRAMINGS["chunked"][:60], FRAMINGS["chunked"][60:]):
                writer.write(piece)
                await asyncio.sleep(0.01)

    async def whole() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=theirs)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/behind/"
        trusting = EngineHttp(
            Address.of_url(url, ssl.create_default_context(cafile=certificate), 4.0), {"authorization": "Bearer k"}
        )
        for _ in range(2):
            assert await said(trusting) == b"hello world"
        assert len(trusting._open) == 1
        assert asked[0].startswith(b"POST /behind/v1/x HTTP/1.1\r\nhost: 127.0.0.1:")
        assert b"\r\nauthorization: Bearer k\r\n" in asked[0]
        careful = EngineHttp(Address.of_url(url, ssl.create_default_context(), 4.0))
        with pytest.raises(ConnectError, match="certificate"):
            await post(careful)
        trusting.close()
        await asyncio.sleep(0.05)
        server.close()

    run(whole())


def test_a_header_cannot_end_its_line(run, path: Path) -> None:
    async def whole() -> None:
        with pytest.raises(ValueError, match="traceparent"):
            await client_of(path).request(
                "POST", "/", headers={"traceparent": "a\r\nx: y"}, timeout_seconds=SECONDS
            )

    run(whole())
