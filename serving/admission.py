"""How many questions the engine is asked at once, and whose turn it is: a queue that is fair between keys.

An engine that is asked more than it can hold makes everybody wait; here one client that asks a thousand questions
waits for itself. Batches wait until nobody else does, and leave room for whoever comes next.
"""

import asyncio
from collections import OrderedDict, deque

from local_llm.errors import RateLimitError
from local_llm.permissions import Caller
from local_llm.settings import ServerSettings

INTERACTIVE = 0
# Of those asked at once, batches may be this share.
BATCH_SHARE = 0.5
BUSY_SECONDS = 1

Turn = asyncio.Future[None]


class _Queue:
    """Who waits, key by key in turn; those of one key in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Turn]] = OrderedDict()
        self.length = 0

    def join(self, key: str) -> Turn:
        turn: Turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        self.length += 1
        return turn

    def leave(self, key: str, turn: Turn) -> None:
        turns = self._waiting.get(key)
        if turns is not None and turn in turns:
            turns.remove(turn)
            self.length -= 1
            if not turns:
                del self._waiting[key]

    def next(self) -> Turn | None:
        """The next in turn, who is out of the queue from now on."""
        while self._waiting:
            key, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            self.length -= 1
            if turns:
                self._waiting[key] = turns  # at the end: the others come first
            if not turn.done():
                return turn
        return None


class Admission:
    """All on one event loop. `running` and `waiting` are for whoever looks from outside."""

    def __init__(self, settings: ServerSettings):
        # Several gateway processes share the engine, each with its part of the limits.
        self._most_running = max(1, settings.max_running_requests // settings.processes)
        self._most_waiting = settings.max_waiting_requests // settings.processes
        self._most_batch = max(1, int(self._most_running * BATCH_SHARE))
        self._interactive, self._batch = _Queue(), _Queue()
        self._running_batch = 0
        self.running = 0

    @property
    def waiting(self) -> int:
        return self._interactive.length + self._batch.length

    def enter(self, caller: Caller, priority: int = INTERACTIVE) -> "Place":
        """For `async with`: the block runs when it is the caller's turn.

        Raises: RateLimitError if too many wait already. Batches are never refused: they are ours to hold back.
        """
        return Place(self, caller.key_id or "", priority == INTERACTIVE)

    async def begin(self, key: str, interactive: bool) -> None:
        """Call `end` when done. Raises: RateLimitError."""
        if not self._free_for(interactive) or self._queue(interactive).length:
            await self._wait(key, interactive)
        else:
            self._begin(interactive)

    def end(self, interactive: bool) -> None:
        self.running -= 1
        self._running_batch -= not interactive
        self._call_next()

    def _queue(self, interactive: bool) -> _Queue:
        return self._interactive if interactive else self._batch

    def _free_for(self, interactive: bool) -> bool:
        if self.running >= self._most_running:
            return False
        return interactive or (self._running_batch < self._most_batch and not self._interactive.length)

    def _begin(self, interactive: bool) -> None:
        self.running += 1
        self._running_batch += not interactive

    def _call_next(self) -> None:
        for interactive in (True, False):
            queue = self._queue(interactive)
            while queue.length and self._free_for(interactive):
                turn = queue.next()
                if turn is not None:
                    self._begin(interactive)
                    turn.set_result(None)

    async def _wait(self, key: str, interactive: bool) -> None:
        queue = self._queue(interactive)
        if interactive and queue.length >= self._most_waiting:
            raise RateLimitError(
                f"{self.running} questions are being answered and {queue.length} wait: no more are taken",
                retry_after_seconds=BUSY_SECONDS,
                limit="busy",
            )
        turn = queue.join(key)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was called in the very moment
                self.end(interactive)
            else:
                queue.leave(key, turn)
            raise


class Place:
    """Among the questions that are answered. (Each answer takes one: a generator for a context costs more.)"""

    def __init__(self, admission: Admission, key: str, interactive: bool):
        self._admission = admission
        self._key = key
        self._interactive = interactive

    async def __aenter__(self) -> None:
        await self._admission.begin(self._key, self._interactive)

    async def __aexit__(self, *_: object) -> None:
        self._admission.end(self._interactive)
