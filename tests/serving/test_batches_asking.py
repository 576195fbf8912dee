"""One request of a batch: asked again while that may help, within its key's tokens and the process's memory."""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from local_llm.errors import RateLimitError
from local_llm.keys import KeyStore
from local_llm.models import ModelStore
from local_llm.permissions import Caller, Limits
from local_llm.settings import Settings
from local_llm.state import State
from serving.batches.asking import MOST_TRIES, Asker, Reply, Source
from serving.batches.requests import find_requests
from serving.batches.room import Room
from serving.limits import Limits as KeyLimits
from serving.services import Services, open_services

from ..handmade_adapters import write_base
from .conftest import BASE
from .recording_engine import running
from .telling_engine import USAGE, TellingEngine
from .test_batches import CHAT, line

T = TypeVar("T")
TOKENS = USAGE["total_tokens"]  # of each answer


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    ModelStore(settings.place.ensure().models).import_folder(write_base(tmp_path / "model"), name=BASE)
    return settings


def with_services(settings: Settings, work: Callable[[Services], Awaitable[T]]) -> T:
    async def run() -> T:
        services = open_services(settings)
        try:
            return await asyncio.wait_for(work(services), 60)
        finally:
            await services.close()

    return asyncio.run(run())


def source_of(tmp_path: Path, *texts: str, endpoint: str = CHAT) -> Source:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line(f"r{n}", text)) + "\n" for n, text in enumerate(texts)))
    return Source(path, endpoint, "")


async def ask_all(asker: Asker, source: Source, caller: Caller) -> list[Reply]:
    lines = list(find_requests(source.path))
    return await asyncio.gather(*(asker.ask(one, source, lambda: caller) for one in lines))


def test_an_engine_that_fails_is_asked_again_and_has_the_last_word(
    settings: Settings, state: State, tmp_path: Path
) -> None:
    """vLLM answers 500 to all that runs when its core dies: a batch's running lines were lost."""
    engine = TellingEngine()
    engine.fail = {"dies once": [500], "dies always": [500] * 100}
    caller = KeyStore(state).local_owner(state.local_project_id())
    source = source_of(tmp_path, "dies once", "dies always")
    with running(engine, settings.place.socket("engine")):  # type: ignore[arg-type]
        replies = with_services(settings, lambda services: ask_all(Asker(services, 0.01), source, caller))
    assert [(reply.custom_id, reply.status) for reply in replies] == [("r0", 200), ("r1", 500)]
    assert engine.counts() == {"dies once": 2, "dies always": MOST_TRIES}


def limited(state: State, **limits: int) -> Caller:
    keys = KeyStore(state)
    made = keys.create(state.local_project_id(), "ana", limits=Limits(**limits))
    return keys.holder(made.key.id)


@pytest.mark.parametrize("endpoint", [CHAT, "/v1/responses", "/v1/completions"])
def test_a_batch_waits_when_its_key_has_used_up_the_day(
    settings: Settings, state: State, tmp_path: Path, endpoint: str
) -> None:
    """Batches took what they wanted: the limits of tokens were for interactive requests only."""
    engine, caller = TellingEngine(), limited(state, tokens_per_day=3 * TOKENS)
    source = source_of(tmp_path, *(f"q{n}" for n in range(8)))
    bodies = [json.loads(text) for text in source.path.read_text().splitlines()]
    for body in bodies:
        asked = body["body"].pop("messages")[0]["content"]
        body["body"] |= {CHAT: {"messages": [{"role": "user", "content": asked}]}}.get(
            endpoint, {"prompt" if "completions" in endpoint else "input": asked}
        )
    source.path.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    source = Source(source.path, endpoint, "")

    async def work(services: Services) -> None:
        asking = asyncio.create_task(ask_all(Asker(services, 0.01), source, caller))
        done, _ = await asyncio.wait({asking}, timeout=4)
        assert not done
        with pytest.raises(RateLimitError, match="30 tokens today"):
            services.limits.enter(caller)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    with running(engine, settings.place.socket("engine")):  # type: ignore[arg-type]
        with_services(settings, work)
    assert len(engine.asked) == 3


def test_a_batch_leaves_interactive_requests_of_its_key_no_long_debt(
    settings: Settings, state: State, tmp_path: Path
) -> None:
    """Hours of 429 came of one batch."""
    engine, caller = TellingEngine(), limited(state, tokens_per_minute=2 * TOKENS)
    source = source_of(tmp_path, *(f"q{n}" for n in range(50)))

    async def work(services: Services) -> None:
        asking = asyncio.create_task(ask_all(Asker(services, 0.01), source, caller))
        await asyncio.wait({asking}, timeout=4)
        with pytest.raises(RateLimitError) as told:
            services.limits.enter(caller)
        assert told.value.retry_after_seconds is not None
        assert told.value.retry_after_seconds <= 61
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    with running(engine, settings.place.socket("engine")):  # type: ignore[arg-type]
        with_services(settings, work)
    assert 1 <= len(engine.asked) <= 3


def test_only_what_there_is_room_for_is_in_memory(settings: Settings, state: State, tmp_path: Path) -> None:
    engine, caller = TellingEngine(), KeyStore(state).local_owner(state.local_project_id())
    engine.pause_seconds = 0.05
    source = source_of(tmp_path, *(f"{n}" * 10_000 for n in range(6)), "small")
    with running(engine, settings.place.socket("engine")):  # type: ignore[arg-type]
        replies = with_services(
            settings, lambda services: ask_all(Asker(services, 0.01, most_bytes=25_000), source, caller)
        )
    assert [reply.status for reply in replies] == [200] * 7
    assert engine.most_running <= 3  # two large ones and the small one


def test_a_request_that_waits_to_be_asked_again_is_not_in_memory(
    settings: Settings, state: State, tmp_path: Path
) -> None:
    """The exception of the try that failed would keep it there, by its traceback."""
    engine, caller = TellingEngine(), KeyStore(state).local_owner(state.local_project_id())
    engine.fail = {"heavy": [503] * 9}
    source = source_of(tmp_path, "heavy")

    def held() -> list[object]:
        """Lists of messages: of dicts that hold strings alone the collector knows nothing."""
        return [one for one in gc.get_objects() if type(one) is list and one and is_heavy(one[0])]

    def is_heavy(one: object) -> bool:
        return type(one) is dict and one.get("content") == "heavy"

    async def work(services: Services) -> None:
        asking = asyncio.create_task(ask_all(Asker(services, 60), source, caller))
        while not engine.asked:
            await asyncio.sleep(0.01)
        deadline = asyncio.get_running_loop().time() + 20
        while held() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.1)
            engine.asked.clear()  # of the test's own engine
            gc.collect()
        assert not held(), [type(one) for kept in held() for one in gc.get_referrers(kept)]
        assert not asking.done()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    with running(engine, settings.place.socket("engine")):  # type: ignore[arg-type]
        with_services(settings, work)


def test_room_is_given_in_turn_and_comes_back_from_whoever_leaves() -> None:
    async def work() -> None:
        room, order = Room(10), []

        async def hold(name: str, size: int) -> None:
            async with room.hold(size):
                order.append(name)
                await asyncio.sleep(0)

        async with room.hold(6):
            tasks = [asyncio.create_task(hold(name, size)) for name, size in (("a", 8), ("b", 2), ("c", 99))]
            await asyncio.sleep(0)
            assert order == []  # the small one does not overtake
            tasks[0].cancel()
            await asyncio.sleep(0.01)
            assert order == ["b"]
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (order, room.free) == (["b", "c"], 10)

    asyncio.run(work())


def test_what_is_under_way_is_taken_for_spent_and_the_debt_has_a_bound(state: State) -> None:
    caller, now = limited(state, tokens_per_minute=600), [0.0]
    limits = KeyLimits(clock=lambda: now[0])
    with limits.batch(caller):
        with pytest.raises(RateLimitError), limits.batch(caller):
            raise AssertionError  # what one takes is not known yet
        limits.spent(caller, 100, batch=True)
    with ExitStack() as under_way:
        for _ in range(5):  # of the 500 that are left, 100 each
            under_way.enter_context(limits.batch(caller))
        with pytest.raises(RateLimitError) as told:
            under_way.enter_context(limits.batch(caller))
    assert told.value.retry_after_seconds == pytest.approx(1)
    limits.spent(caller, 10_000_000, batch=True)
    with pytest.raises(RateLimitError) as told:
        limits.enter(caller)
    assert told.value.retry_after_seconds == pytest.approx(60.1)
    limits.spent(caller, 1200)  # an interactive answer is a debt in full
    limits.spent(caller, 1200, batch=True)
    with pytest.raises(RateLimitError) as told:
        limits.enter(caller)
    assert told.value.retry_after_seconds == pytest.approx(180.1)
