"""Whether chats would be served now. Anybody may ask, and engines have other work: one look a second is enough."""

import asyncio
from dataclasses import dataclass

from index.client import AsyncIndexClient
from serving.engine_client import EngineStatus
from serving.engine_pool import Engine

HOLDS_SECONDS = 1.0


@dataclass(frozen=True)
class Seen:
    engine: EngineStatus
    index_up: bool


class Readiness:
    """To be asked in one event loop."""

    def __init__(self, engine: Engine, index: AsyncIndexClient):
        self._engine = engine
        self._index = index
        self._looking: asyncio.Task[Seen] | None = None
        self._began = 0.0

    async def look(self) -> Seen:
        """What was seen a second ago at most, or will be: all who ask meanwhile wait for one look."""
        moment = asyncio.get_running_loop().time()
        if self._looking is None or (self._looking.done() and moment - self._began >= HOLDS_SECONDS):
            self._looking, self._began = asyncio.create_task(self._look()), moment
        return await asyncio.shield(self._looking)

    async def _look(self) -> Seen:
        return Seen(*await asyncio.gather(self._engine.status(), self._index.ready()))
