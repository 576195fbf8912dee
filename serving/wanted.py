"""Work that ends when the client who asked for it has left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive

from serving.bodies import ClientLeftError

# A client is looked for from then on: most answers that are not streamed are faster, and need no task beside them.
LOOK_SECONDS = 0.25


@asynccontextmanager
async def while_wanted(receive: Receive) -> AsyncIterator[None]:
    """Ends the block when the client has left: nobody wants what is still being generated.

    Raises: ClientLeftError.
    """
    task = asyncio.current_task()
    assert task is not None
    watch = _Watch(task, receive)
    timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, watch.begin)
    try:
        yield
    except asyncio.CancelledError:
        if watch.left and task.uncancel() == 0:
            raise ClientLeftError("the client has left") from None
        raise
    finally:
        timer.cancel()
        watch.end()


class _Watch:
    def __init__(self, task: asyncio.Task[None], receive: Receive):
        self._task = task
        self._receive = receive
        self._looking: asyncio.Task[None] | None = None
        self.left = False

    def begin(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(self._look())

    def end(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self._task.cancel()
