"""Whose turn it is: keys take turns, batches come last, and nobody who goes away leaves a place taken."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from local_llm.errors import RateLimitError
from local_llm.permissions import Caller
from local_llm.settings import ServerSettings
from serving.admission import INTERACTIVE, Admission

BATCH = 1


def caller(name: str) -> Caller:
    return Caller("proj", "member", key_id=name)


def admission(running: int, waiting: int = 100, processes: int = 1) -> Admission:
    return Admission(
        ServerSettings(max_running_requests=running, max_waiting_requests=waiting, processes=processes)
    )


class Asking:
    """Questions that are open until they are told to end; `order` is that in which they came to their turn."""

    def __init__(self, admission: Admission):
        self._admission = admission
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.order: list[str] = []

    async def begin(self, name: str, priority: int = INTERACTIVE, weight: int = 1) -> None:
        """`name` is that of the key and a number: ana1."""
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._ask(name, priority, weight))
        await settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settle()

    async def leave(self, name: str) -> None:
        self.tasks[name].cancel()
        await settle()

    async def _ask(self, name: str, priority: int, weight: int) -> None:
        async with self._admission.enter(caller(name.rstrip("0123456789")), priority, weight):
            self.order.append(name)
            await self._ends[name].wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_keys_take_turns_however_much_one_of_them_asks() -> None:
    async def scenario() -> None:
        asking = Asking(admission(1))
        for name in ("ana1", "ana2", "ana3", "ana4", "bob1", "eve1", "bob2"):
            await asking.begin(name)
        for name in ("ana1", "ana2", "bob1", "eve1", "ana3", "bob2", "ana4"):
            assert asking.order[-1] == name
            await asking.end(name)
        assert len(asking.order) == 7

    run(scenario())


def test_those_of_one_key_keep_their_order() -> None:
    async def scenario() -> None:
        asking = Asking(admission(2))
        names = [f"ana{number}" for number in range(6)]
        for name in names:
            await asking.begin(name)
        for name in names:
            await asking.end(name)
        assert asking.order == names

    run(scenario())


def test_whoever_finds_a_free_place_waits_for_nobody() -> None:
    async def scenario() -> None:
        asking = Asking(admission(3))
        for name in ("ana1", "ana2", "bob1"):
            await asking.begin(name)
        assert len(asking.order) == 3

    run(scenario())


def test_beyond_the_queue_one_is_told_when_to_come_back() -> None:
    async def scenario() -> None:
        places = admission(1, waiting=2)
        asking = Asking(places)
        for name in ("ana1", "ana2", "bob1"):
            await asking.begin(name)
        with pytest.raises(RateLimitError) as caught:
            async with places.enter(caller("eve")):
                pass
        assert (caught.value.status, caught.value.limit) == (429, "busy")
        assert caught.value.retry_after_seconds is not None
        await asking.end("ana1")
        await asking.begin("eve1")  # there is room again
        assert (places.running, places.waiting) == (1, 2)

    run(scenario())


def test_a_queue_that_one_key_fills_is_open_to_the_others() -> None:
    """Whoever asked most lost nothing, and everybody else was refused."""

    async def scenario() -> None:
        places = admission(1, waiting=3)
        asking = Asking(places)
        for name in ("ana1", "ana2", "ana3", "ana4", "bob1"):
            await asking.begin(name)
        with pytest.raises(RateLimitError, match="no more are taken"):
            await asking.tasks["ana4"]
        await asking.begin("ana5")  # it has most already
        with pytest.raises(RateLimitError, match="no more are taken"):
            await asking.tasks["ana5"]
        for name in ("ana1", "ana2", "bob1", "ana3"):
            assert asking.order[-1] == name
            await asking.end(name)
        assert (places.running, places.waiting) == (0, 0)

    run(scenario())


def test_waiting_has_an_end() -> None:
    async def scenario() -> None:
        places = Admission(ServerSettings(max_running_requests=1, request_timeout_seconds=0.05))
        asking = Asking(places)
        for name in ("ana1", "bob1", "eve1"):
            await asking.begin(name)
        with pytest.raises(RateLimitError, match=r"no turn came in 0\.05 s") as caught:
            await asking.tasks["bob1"]
        assert caught.value.retry_after_seconds is not None
        with pytest.raises(RateLimitError):
            await asking.tasks["eve1"]
        assert (places.running, places.waiting) == (1, 0)

    run(scenario())


def test_who_asks_for_many_answers_takes_as_many_places() -> None:
    async def scenario() -> None:
        places = admission(4)
        asking = Asking(places)
        await asking.begin("ana1", weight=3)
        await asking.begin("bob1", weight=2)  # waited for, though there is room for less
        await asking.begin("eve1")
        await asking.begin("eve2", weight=1000)  # all that there is
        assert (places.running, asking.order) == (3, ["ana1"])
        await asking.end("ana1")
        assert (places.running, asking.order) == (3, ["ana1", "bob1", "eve1"])
        await asking.end("bob1")
        await asking.end("eve1")
        assert (places.running, asking.order[-1]) == (4, "eve2")
        await asking.end("eve2")
        assert places.running == 0

    run(scenario())


def test_who_waits_behind_one_that_leaves_takes_the_room_that_there_is() -> None:
    async def scenario() -> None:
        asking = Asking(admission(2))
        await asking.begin("ana1")
        await asking.begin("bob1", weight=2)
        await asking.begin("eve1")
        await asking.leave("bob1")
        assert asking.order == ["ana1", "eve1"]

    run(scenario())


def test_batches_wait_for_everybody_and_leave_half_of_the_places() -> None:
    async def scenario() -> None:
        places = admission(4)
        asking = Asking(places)
        for number in range(4):
            await asking.begin(f"batch{number}", BATCH)
        assert asking.order == ["batch0", "batch1"]
        for name in ("ana1", "ana2", "ana3"):
            await asking.begin(name)
        assert asking.order[2:] == ["ana1", "ana2"]
        await asking.end("batch0")  # its place goes to whoever is there
        assert asking.order[-1] == "ana3"
        await asking.end("ana1")
        assert asking.order[-1] == "batch2"

    run(scenario())


def test_batches_are_never_refused() -> None:
    async def scenario() -> None:
        places = admission(1, waiting=0)
        asking = Asking(places)
        for number in range(50):
            await asking.begin(f"batch{number}", BATCH)
        assert places.waiting == 49
        for number in range(50):
            await asking.end(f"batch{number}")
        assert len(asking.order) == 50

    run(scenario())


def test_whoever_leaves_while_waiting_takes_no_turn() -> None:
    async def scenario() -> None:
        places = admission(1)
        asking = Asking(places)
        for name in ("ana1", "bob1", "eve1"):
            await asking.begin(name)
        await asking.leave("bob1")
        assert places.waiting == 1
        await asking.end("ana1")
        assert asking.order == ["ana1", "eve1"]
        await asking.end("eve1")
        assert (places.running, places.waiting) == (0, 0)

    run(scenario())


def test_whoever_is_called_and_leaves_in_one_moment_hands_the_turn_on() -> None:
    async def scenario() -> None:
        places = admission(1)
        asking = Asking(places)
        for name in ("ana1", "bob1", "eve1"):
            await asking.begin(name)
        asking._ends["ana1"].set()
        await asyncio.sleep(0)  # ana has ended and bob is called, but has not run yet
        asking.tasks["bob1"].cancel()
        await settle()
        assert asking.order == ["ana1", "eve1"]
        await asking.end("eve1")
        assert (places.running, places.waiting) == (0, 0)

    run(scenario())


def test_an_error_inside_frees_the_place() -> None:
    async def scenario() -> None:
        places = admission(1)
        with pytest.raises(ValueError, match="inside"):
            async with places.enter(caller("ana")):
                raise ValueError("inside")
        assert places.running == 0

    run(scenario())


def test_several_gateways_each_have_their_part() -> None:
    async def scenario() -> None:
        places = admission(8, processes=4)
        asking = Asking(places)
        for number in range(3):
            await asking.begin(f"ana{number}")
        assert (places.running, places.waiting) == (2, 1)

    run(scenario())


STEPS = some.lists(
    some.tuples(
        some.sampled_from(["begin", "begin batch", "end", "leave", "call and leave"]),
        some.sampled_from(["ana", "bob", "eve"]),
        some.integers(0, 30),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(limit=some.integers(1, 5), steps=STEPS)
def test_no_more_run_than_may_and_in_the_end_none_does(limit: int, steps: list[tuple[str, str, int]]) -> None:
    async def scenario() -> None:
        places = admission(limit, waiting=10)
        asking = Asking(places)
        for number, (step, key, which) in enumerate(steps):
            names = list(asking.tasks)
            name = names[which % len(names)] if names else None
            if step.startswith("begin"):
                await asking.begin(f"{key}{number}", BATCH if "batch" in step else INTERACTIVE)
            elif name is None:
                continue
            elif step == "end":
                await asking.end(name)
            elif step == "leave":
                await asking.leave(name)
            else:
                asking._ends[name].set()
                await asyncio.sleep(0)
                for other in names:
                    if other.startswith(key):
                        asking.tasks[other].cancel()
                await settle()
            assert 0 <= places.running <= limit
            open_ = [task for task in asking.tasks.values() if not task.done()]
            assert len(open_) == places.running + places.waiting
            if places.waiting:  # nobody waits beside a free place, but batches for theirs
                assert places.running >= min(limit, max(1, limit // 2))
        for end in asking._ends.values():
            end.set()
        for task in asking.tasks.values():
            with suppress(asyncio.CancelledError, RateLimitError):
                await task
        assert (places.running, places.waiting, places._running_batch) == (0, 0, 0)

    run(scenario())
