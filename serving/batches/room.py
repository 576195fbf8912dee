"""How many bytes of requests all batches of a process have in memory at once, whoever sent them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# Of the bytes of the inputs, two of the largest lines. As objects of Python they can take twenty times as many.
MOST_BYTES = 32 * 1024**2


class Room:
    """Those who want some get it in the order in which they came, so large ones wait for no more than the others.
    All on one event loop."""

    def __init__(self, most_bytes: int = MOST_BYTES):
        self._most = self.free = most_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """What is larger than all the room has it alone."""
        size = min(size, self._most)
        await self._take(size)
        try:
            yield
        finally:
            self._give(size)

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self.free:
            self.free -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was called in the very moment
                self._give(size)
            else:
                self._call_next()  # those behind it may fit
            raise

    def _give(self, size: int) -> None:
        self.free += size
        self._call_next()

    def _call_next(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.done():
                if size > self.free:
                    return
                self.free -= size
                turn.set_result(None)
            self._waiting.popleft()
