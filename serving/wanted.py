"""Work that ends when the client who asked for it has left."""

import asyncio
from types import TracebackType

from starlette.types import Receive

from serving.bodies import ClientLeftError

# A client is looked for from then on: most answers that are not streamed are faster, and need no task beside them.
LOOK_SECONDS = 0.25


class WhileWanted:
    """A block in a task that ends when the client has left: nobody wants what is still being generated.

    Raises: ClientLeftError.
    """

    def __init__(self, receive: Receive):
        self._receive = receive
        self._looking: asyncio.Task[None] | None = None
        self._left = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = task.get_loop().call_later(LOOK_SECONDS, self._begin)

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        if isinstance(error, asyncio.CancelledError) and self._left and self._task.uncancel() == 0:
            raise ClientLeftError("the client has left") from None

    def _begin(self) -> None:
        self._looking = self._task.get_loop().create_task(self._look())

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._task.cancel()
