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


class _Turn:
    """One that waits for so many places; `called` tells when it has them, or why it never will."""

    def __init__(self, key: str, weight: int):
        self.key = key
        self.weight = weight
        self.called: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def refuse(self, error: RateLimitError) -> None:
        if not self.called.done():
            self.called.set_exception(error)

    @property
    def has_begun(self) -> bool:
        called = self.called
        return called.done() and not called.cancelled() and called.exception() is None


class _Queue:
    """Who waits, key by key in turn; those of one key in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[_Turn]] = OrderedDict()
        self.length = 0

    def join(self, turn: _Turn) -> None:
        self._waiting.setdefault(turn.key, deque()).append(turn)
        self.length += 1

    def leave(self, turn: _Turn) -> None:
        turns = self._waiting.get(turn.key)
        if turns is not None and turn in turns:
            turns.remove(turn)
            self.length -= 1
            if not turns:
                del self._waiting[turn.key]

    def first(self) -> _Turn | None:
        """The next in turn; those that will not come any more are out of the queue."""
        while self._waiting:
            turn = next(iter(self._waiting.values()))[0]
            if not turn.called.done():
                return turn
            self.leave(turn)
        return None

    def take(self, turn: _Turn) -> None:
        """Out of the queue, which goes on with the other keys."""
        self.leave(turn)
        if turn.key in self._waiting:
            self._waiting.move_to_end(turn.key)

    def make_room_for(self, key: str) -> _Turn | None:
        """The last turn, out of the queue, of the key that has most; None if `key` would have as many itself."""
        longest = max(self._waiting.values(), key=len, default=deque[_Turn]())
        if len(self._waiting.get(key, ())) + 1 >= len(longest):
            return None
        last = longest[-1]
        self.leave(last)
        return last


class Admission:
    """All on one event loop. `running` and `waiting` are for whoever looks from outside."""

    def __init__(self, settings: ServerSettings):
        # Several gateway processes share the engine, each with its part of the limits.
        self._most_running = max(1, settings.max_running_requests // settings.processes)
        self._most_waiting = settings.max_waiting_requests // settings.processes
        self._most_batch = max(1, int(self._most_running * BATCH_SHARE))
        self._longest_wait_seconds = settings.request_timeout_seconds
        self._interactive, self._batch = _Queue(), _Queue()
        self._running_batch = 0
        self.running = 0

    @property
    def waiting(self) -> int:
        return self._interactive.length + self._batch.length

    def enter(self, caller: Caller, priority: int = INTERACTIVE, weight: int = 1) -> "Place":
        """For `async with`: the block runs when it is the caller's turn. `weight`: how many answers it asks for.

        Raises: RateLimitError if too many wait already, or it has waited too long. Batches are never refused: they
        are ours to hold back.
        """
        interactive = priority == INTERACTIVE
        weight = min(weight, self._most_running if interactive else self._most_batch)
        return Place(self, caller.key_id or "", interactive, weight)

    async def begin(self, key: str, interactive: bool, weight: int) -> None:
        """Call `end` when done. Raises: RateLimitError."""
        if not self._free_for(interactive, weight) or self._queue(interactive).length:
            await self._wait(_Turn(key, weight), interactive)
        else:
            self._begin(interactive, weight)

    def end(self, interactive: bool, weight: int) -> None:
        self.running -= weight
        self._running_batch -= 0 if interactive else weight
        self._call_next()

    def _queue(self, interactive: bool) -> _Queue:
        return self._interactive if interactive else self._batch

    def _free_for(self, interactive: bool, weight: int) -> bool:
        if self.running + weight > self._most_running:
            return False
        return interactive or (self._running_batch + weight <= self._most_batch and not self._interactive.length)

    def _begin(self, interactive: bool, weight: int) -> None:
        self.running += weight
        self._running_batch += 0 if interactive else weight

    def _call_next(self) -> None:
        """Whoever is first is waited for until there is room for all that it asks for: else it would never come."""
        for interactive in (True, False):
            queue = self._queue(interactive)
            while (turn := queue.first()) is not None and self._free_for(interactive, turn.weight):
                queue.take(turn)
                self._begin(interactive, turn.weight)
                turn.called.set_result(None)

    async def _wait(self, turn: _Turn, interactive: bool) -> None:
        queue, timer = self._queue(interactive), None
        if interactive:
            self._make_room(queue, turn.key)
            timer = turn.called.get_loop().call_later(self._longest_wait_seconds, turn.refuse, self._too_long())
        queue.join(turn)
        try:
            await turn.called
        except (asyncio.CancelledError, RateLimitError):
            if turn.has_begun:  # it was called in the very moment
                self.end(interactive, turn.weight)
            else:
                queue.leave(turn)
                self._call_next()  # it may have been the first, and too much for the room that there is
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _make_room(self, queue: _Queue, key: str) -> None:
        """Raises: RateLimitError if there is none, and nobody who asks for more than `key` does."""
        if queue.length < self._most_waiting:
            return
        displaced = queue.make_room_for(key)
        if displaced is None:
            raise self._busy()
        displaced.refuse(self._busy())

    def _busy(self) -> RateLimitError:
        return RateLimitError(
            f"{self.running} questions are being answered and {self._interactive.length} wait: no more are taken",
            retry_after_seconds=BUSY_SECONDS,
            limit="busy",
        )

    def _too_long(self) -> RateLimitError:
        return RateLimitError(
            f"no turn came in {self._longest_wait_seconds:g} s: too many questions are being answered",
            retry_after_seconds=BUSY_SECONDS,
            limit="busy",
        )


class Place:
    """Among the questions that are answered. (Each answer takes one: a generator for a context costs more.)"""

    def __init__(self, admission: Admission, key: str, interactive: bool, weight: int):
        self._admission = admission
        self._key = key
        self._interactive = interactive
        self._weight = weight

    async def __aenter__(self) -> None:
        await self._admission.begin(self._key, self._interactive, self._weight)

    async def __aexit__(self, *_: object) -> None:
        self._admission.end(self._interactive, self._weight)
