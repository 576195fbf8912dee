"""The load generator: clients that each ask again as soon as they have their answer, over connections kept open."""

import asyncio
import gc
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httptools
import uvloop

# An event's content where the engine stamps it: the monotonic clock, in nanoseconds.
STAMP = re.compile(rb'"content":\s?"(\d{12,})"')
DONE = b"[DONE]"
MOST_ERRORS = 100

Address = tuple[str, int] | Path


@dataclass
class Seen:
    """What the clients saw in the time that counts. Latencies in seconds, delays of stamped events too."""

    latencies: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    events: int = 0
    reads: int = 0  # of the socket that brought events
    errors: int = 0
    first_error: str = ""
    seconds: float = 0.0
    started: float = 0.0


class Client(asyncio.Protocol):
    """One connection; on_… are called by the parser. `next_request` gives what to ask, or None to stop."""

    def __init__(self, seen: Seen, next_request: Callable[[], bytes | None]):
        self._seen = seen
        self._next_request = next_request
        self.finished: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        request = self._next_request()
        if request is None:
            self._finish(whole=True)
            return
        self._parser = httptools.HttpResponseParser(self)
        self._events, self._ended, self._tail = 0, False, b""
        self._waiting = True
        self._sent = time.perf_counter()
        self._transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._read_at = time.monotonic_ns()
        before = self._seen.events
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"no HTTP: {error}")
        self._seen.reads += self._seen.events > before

    def on_body(self, body: bytes) -> None:
        text = self._tail + body
        cut = text.rfind(b"\n\n") + 2
        if cut == 1:  # no event ends here
            self._tail = text
            return
        whole, self._tail = text[:cut], text[cut:]
        found = whole.count(b"data: {")
        self._events += found
        self._seen.events += found
        self._seen.delays += [(self._read_at - int(stamp)) / 1e9 for stamp in STAMP.findall(whole)]
        self._ended = self._ended or DONE in whole

    def on_message_complete(self) -> None:
        seen, status = self._seen, self._parser.get_status_code()
        self._waiting = False
        if status != 200 or (self._events and not self._ended):
            self._fail(f"status {status}, {self._events} events: {self._tail[:200]!r}")
            return
        seen.latencies.append(time.perf_counter() - self._sent)
        if self._parser.should_keep_alive():
            self._ask()
        else:
            self._finish(whole=False)

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiting:
            self._fail(f"connection lost in mid-answer: {error}")
        self._finish(whole=False)

    def _fail(self, reason: str) -> None:
        self._waiting = False
        self._seen.errors += 1
        self._seen.first_error = self._seen.first_error or reason
        self._finish(whole=False)

    def _finish(self, *, whole: bool) -> None:
        """`whole`: there is nothing more to ask."""
        self._transport.close()
        if not self.finished.done():
            self.finished.set_result(whole)


# Runs


def repeated(
    address: Address,
    request: bytes,
    clients: int,
    *,
    warm_seconds: float,
    seconds: float,
    at_ends: Callable[[], None],
) -> Seen:
    """Clients that ask again and again. What counts is what ends within `seconds` after the warm-up; `at_ends` is
    called at both ends of that time."""
    seen = Seen()
    counted: list[Seen] = []

    def begin() -> None:
        at_ends()
        seen.__dict__.update(Seen(started=time.perf_counter(), errors=seen.errors).__dict__)

    def end() -> None:
        counted.append(replace(seen, seconds=time.perf_counter() - seen.started, latencies=seen.latencies[:]))
        at_ends()

    async def run() -> None:
        loop, stop_at = asyncio.get_running_loop(), time.perf_counter() + warm_seconds + seconds
        loop.call_later(warm_seconds, begin)
        loop.call_later(warm_seconds + seconds, end)
        await _all(address, clients, seen, lambda: request if time.perf_counter() < stop_at else None)
        while not counted:
            await asyncio.sleep(0.01)

    with no_collection():
        uvloop.run(run())
    return counted[0]


@dataclass(frozen=True)
class Looks:
    """Something to be done every so often while clients ask."""

    every_seconds: float
    look: Callable[[], None]


def once(address: Address, requests: Iterator[bytes], clients: int, looks: Looks | None = None) -> Seen:
    """Asks each request once, by so many clients."""
    seen = Seen(started=time.perf_counter())

    async def run() -> None:
        looking = asyncio.ensure_future(_look(looks)) if looks else None
        await _all(address, clients, seen, lambda: next(requests, None))
        if looking:
            looking.cancel()

    with no_collection():
        uvloop.run(run())
    seen.seconds = time.perf_counter() - seen.started
    return seen


async def _look(looks: Looks) -> None:
    while True:
        await asyncio.sleep(looks.every_seconds)
        looks.look()


async def _all(address: Address, clients: int, seen: Seen, next_request: Callable[[], bytes | None]) -> None:
    await asyncio.gather(*(_one(address, seen, next_request) for _ in range(clients)))


async def _one(address: Address, seen: Seen, next_request: Callable[[], bytes | None]) -> None:
    """One client: connects anew where its connection was not kept.

    Raises: LoadError when nearly nothing works.
    """
    whole = False
    while not whole:
        client = await connect(address, lambda: Client(seen, next_request))
        whole = await client.finished
        if seen.errors > MOST_ERRORS:
            raise LoadError(f"{seen.errors} errors, the first: {seen.first_error}")


async def connect(address: Address, protocol: Callable[[], Client]) -> Client:
    loop = asyncio.get_running_loop()
    if isinstance(address, Path):
        return (await loop.create_unix_connection(protocol, str(address)))[1]
    return (await loop.create_connection(protocol, *address))[1]


@contextmanager
def no_collection() -> Iterator[None]:
    """A collection of garbage in the load generator would look like a slow gateway."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class LoadError(Exception):
    pass
