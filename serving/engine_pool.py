"""Several engines as one: each request goes to the least busy of those that are well.

An engine is left out as soon as a connection to it fails, or once it was asked a few times after its health in
vain; from then on it is asked ever more rarely, until it answers. One that is late once stays. A request that could
not even be sent is given to another engine. One whose connection broke is not: it may be what the engine died of,
and would end the others one by one.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Protocol

from local_llm.adapters import AdapterRegistry
from local_llm.device import training_job
from local_llm.errors import UnavailableError
from local_llm.settings import Settings
from local_llm.state import Adapter
from serving.engine_client import (
    MOST_SILENCES,
    EngineClient,
    EngineError,
    EngineStatus,
    LateError,
    Look,
    LostError,
    UnreachableError,
)
from serving.engine_connection import EngineResponse
from serving.engine_http import NO_HEADERS
from serving.loaded_adapters import AdapterRefusedError
from serving.remote_engines import remote_engines
from serving.whereabouts import local, remote

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0

log = logging.getLogger("local_llm.gateway")


class Engine(Protocol):
    """What answers: one engine, or several. See EngineClient for what is promised."""

    def post(
        self,
        path: str,
        body: dict[str, Any],
        adapter: Adapter | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> AbstractAsyncContextManager[EngineResponse]: ...

    async def status(self) -> EngineStatus: ...

    async def ready(self) -> bool: ...

    async def metrics(self) -> bytes: ...

    async def unload_adapter(self, name: str) -> None: ...

    async def close(self) -> None: ...


def open_engine(settings: Settings, adapters: AdapterRegistry) -> Engine:
    """Raises: SettingsError."""
    timeout = settings.server.request_timeout_seconds
    elsewhere = remote_engines(settings)
    if not elsewhere:
        where = local(settings.place, timeout, partial(training_job, settings))
        return EngineClient(where, adapters.verify)
    return EnginePool([EngineClient(remote(engine, timeout), adapters.verify) for engine in elsewhere])


class Member:
    """An engine of the pool."""

    def __init__(self, client: EngineClient):
        self.client = client
        self.in_flight = 0
        self.asked_again_at = 0.0  # while it is left out
        self._return: asyncio.Task[None] | None = None
        self._doubt: asyncio.Task[None] | None = None

    @property
    def well(self) -> bool:
        return self._return is None

    def busy(self, adapter: Adapter | None) -> tuple[int, bool]:
        """The smallest is asked: the fewest requests of ours; among equals one that need not load the adapter."""
        return self.in_flight, adapter is not None and not self.client.knows_adapter(adapter.name)

    @asynccontextmanager
    async def post(
        self, path: str, body: dict[str, Any], adapter: Adapter | None, headers: Mapping[str, str]
    ) -> AsyncIterator[EngineResponse]:
        self.in_flight += 1
        try:
            async with self.client.post(path, body, adapter, headers) as response:
                yield response
        finally:
            self.in_flight -= 1

    def leave_out(self, reason: object) -> None:
        if self._return is None:
            log.warning("%s is left out: %s", self.client.name, reason)
            self._return = asyncio.create_task(self._until_well())

    def doubt(self) -> None:
        """It failed at a request, or said nothing: is it well? Asked by the side, and by one at a time."""
        if self.well and (self._doubt is None or self._doubt.done()):
            self._doubt = asyncio.create_task(self._until_sure())

    async def look(self) -> bool:
        """Whether it answers now, or is only late."""
        look = await self.client.look()
        if look is Look.DOWN:
            self.leave_out("it does not answer /health")
        elif look is Look.SILENT:
            self.doubt()
        return look is Look.WELL or (look is Look.SILENT and self.well)

    async def _until_sure(self) -> None:
        for _ in range(MOST_SILENCES):
            look = await self.client.look()
            if look is Look.WELL:
                return
            if look is Look.DOWN:
                break
        self.leave_out("it does not answer /health")

    async def _until_well(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            self.asked_again_at = time.monotonic() + pause
            await asyncio.sleep(pause)
            if await self.client.look() is Look.WELL:
                break
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        log.warning("%s is back", self.client.name)
        self._return = None

    async def close(self) -> None:
        for task in (self._return, self._doubt):
            if task is not None:
                task.cancel()
        await self.client.close()


class EnginePool:
    """Engines that serve the same base. Call `close` when done."""

    def __init__(self, clients: Sequence[EngineClient]):
        self._members = [Member(client) for client in clients]
        self._turn = 0

    async def close(self) -> None:
        for member in self._members:
            await member.close()

    async def status(self) -> EngineStatus:
        each = tuple(await asyncio.gather(*(member.look() for member in self._members)))
        return EngineStatus(any(each), each=each)

    async def ready(self) -> bool:
        return (await self.status()).up

    async def metrics(self) -> bytes:
        """Nothing: the same names of several engines make no text. Each is there to be read by itself."""
        return b""

    @asynccontextmanager
    async def post(
        self,
        path: str,
        body: dict[str, Any],
        adapter: Adapter | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> AsyncIterator[EngineResponse]:
        """As EngineClient.post, of whichever engine takes it first."""
        async with AsyncExitStack() as stack:
            yield await self._open(stack, path, body, adapter, headers)

    async def unload_adapter(self, name: str) -> None:
        await asyncio.gather(*(member.client.unload_adapter(name) for member in self._members if member.well))

    async def _open(
        self,
        stack: AsyncExitStack,
        path: str,
        body: dict[str, Any],
        adapter: Adapter | None,
        headers: Mapping[str, str],
    ) -> EngineResponse:
        tried: list[Member] = []
        failure: UnavailableError | AdapterRefusedError | None = None
        while (member := self._choose(adapter, tried)) is not None:
            tried.append(member)
            try:
                return await stack.enter_async_context(member.post(path, body, adapter, headers))
            except UnreachableError as error:
                member.leave_out(error)
                failure = error
            except AdapterRefusedError as error:
                failure = error
            except LostError as error:
                member.leave_out(error)
                raise
            except (LateError, EngineError) as error:
                if error.status >= 500:  # a dead one that refuses fast would be the least busy
                    member.doubt()
                raise
        raise failure or self._nobody()

    def _choose(self, adapter: Adapter | None, tried: Sequence[Member]) -> Member | None:
        """The least busy, by turns among equals; None if there is none left to try."""
        self._turn = (self._turn + 1) % len(self._members)
        by_turns = self._members[self._turn :] + self._members[: self._turn]
        well = [member for member in by_turns if member.well and member not in tried]
        return min(well, key=lambda member: member.busy(adapter), default=None)

    def _nobody(self) -> UnavailableError:
        soonest = min(member.asked_again_at for member in self._members) - time.monotonic()
        return UnavailableError(
            "none of the engines is up (engine.urls)",
            hint="ask again in a few seconds",
            retry_after_seconds=max(math.ceil(soonest), 1),
        )
