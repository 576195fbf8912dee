"""Engines elsewhere: the least busy answers, one that fails is left out, and the others go on."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from index.client import AsyncIndexClient
from local_llm.errors import LocalLLMError, UnavailableError
from local_llm.settings import Settings, load_settings
from local_llm.state import Adapter
from serving import engine_client
from serving.engine_client import MOST_SILENCES, EngineClient, EngineError
from serving.engine_pool import EnginePool
from serving.loaded_adapters import AdapterRefusedError
from serving.readiness import HOLDS_SECONDS, Readiness
from serving.remote_engines import remote_engines
from serving.whereabouts import remote

from .recording_engine import SmallEngine, listening

CHAT = "/v1/chat/completions"
PATIENCE_SECONDS = 10


def adapter(name: str = "ft:m:local::one") -> Adapter:
    return Adapter(id=f"adapter-{name[-3:]}", name=name, rank=16)


@dataclass
class Farm:
    """So many engines on ports of their own, any of which can be switched off and on."""

    folder: Path
    engines: list[SmallEngine]
    verified: list[str] = field(default_factory=list)
    options: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stacks = [ExitStack() for _ in self.engines]
        self._ports = [0] * len(self.engines)
        for number in range(len(self.engines)):
            self.start(number)

    def start(self, number: int) -> None:
        port = self._stacks[number].enter_context(listening(self.engines[number], self._ports[number]))
        self._ports[number] = port

    def stop(self, number: int) -> None:
        self._stacks[number].close()

    def settings(self) -> Settings:
        urls = [f"http://127.0.0.1:{port}" for port in self._ports]
        options = {f"engine.{name}": value for name, value in self.options.items()}
        return load_settings(
            environment={"LOCAL_LLM_HOME": str(self.folder)}, overrides={"engine.urls": urls, **options}
        )

    def run(self, what: Callable[[EnginePool], Awaitable[None]], timeout_seconds: float = 60) -> None:
        async def whole() -> None:
            members = [
                EngineClient(remote(one, timeout_seconds), self.verify) for one in remote_engines(self.settings())
            ]
            pool = EnginePool(members)
            try:
                await what(pool)
            finally:
                await pool.close()

        asyncio.run(whole())

    def verify(self, row: Adapter) -> Path:
        self.verified.append(row.name)
        return self.folder / "adapters" / row.id

    @property
    def chats(self) -> list[int]:
        """How many each was asked."""
        return [engine.paths().count(CHAT) for engine in self.engines]


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    one = Farm(tmp_path, [SmallEngine(), SmallEngine(), SmallEngine()])
    yield one
    for number in range(3):
        one.engines[number].busy = False
        one.stop(number)


async def ask(pool: EnginePool, row: Adapter | None = None, **body: object) -> str:
    asked = {"model": row.name if row else "m", "messages": [], **body}
    async with pool.post(CHAT, asked, row) as response:
        return str((await response.json())["choices"][0]["message"]["content"])


async def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def settle(pool: EnginePool, *up: bool) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (await pool.status()).each != up:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def test_engines_that_are_equally_busy_take_turns(farm: Farm) -> None:
    async def story(pool: EnginePool) -> None:
        for _ in range(9):
            await ask(pool)

    farm.run(story)
    assert farm.chats == [3, 3, 3]


def test_a_request_goes_to_the_least_busy(farm: Farm) -> None:
    async def story(pool: EnginePool) -> None:
        farm.engines[0].busy = farm.engines[2].busy = True
        held = [asyncio.create_task(ask(pool)) for _ in range(3)]
        await until(lambda: farm.chats == [1, 1, 1])
        for _ in range(5):
            assert await ask(pool) == "I am m."
        assert farm.chats == [1, 6, 1]
        farm.engines[0].busy = farm.engines[2].busy = False
        await asyncio.gather(*held)

    farm.run(story)


def test_an_engine_that_is_down_is_left_out_and_comes_back(farm: Farm) -> None:
    async def story(pool: EnginePool) -> None:
        farm.stop(1)
        for _ in range(9):
            assert await ask(pool) == "I am m."
        assert farm.chats[1] == 0
        status = await pool.status()
        assert (status.up, status.each) == (True, (True, False, True))
        farm.start(1)
        await settle(pool, True, True, True)
        await until(lambda: all(member.well for member in pool._members))
        for _ in range(3):
            await ask(pool)
        assert farm.chats[1] == 1

    farm.run(story)


def test_with_all_down_it_is_told_when_to_come_back(farm: Farm) -> None:
    async def story(pool: EnginePool) -> None:
        for number in range(3):
            farm.stop(number)
        for _ in range(2):
            with pytest.raises(UnavailableError) as error:
                await ask(pool)
            assert error.value.retry_after_seconds >= 1
        assert "none of the engines is up" in error.value.message
        assert not await pool.ready()
        farm.start(2)
        await settle(pool, False, False, True)
        await until(lambda: pool._members[2].well)
        assert await ask(pool) == "I am m."

    farm.run(story)


def test_a_request_whose_connection_broke_is_not_given_to_another(farm: Farm) -> None:
    """It may be what the engine died of."""

    async def story(pool: EnginePool) -> None:
        for engine in farm.engines:
            engine.die = True
        with pytest.raises(UnavailableError):
            await ask(pool)
        assert sum(farm.chats) == 1

    farm.run(story)


def test_an_engine_that_says_nothing_is_left_out(farm: Farm) -> None:
    async def story(pool: EnginePool) -> None:
        farm.engines[1].busy = True
        answers = await asyncio.gather(*(ask(pool) for _ in range(3)), return_exceptions=True)
        [failure] = [answer for answer in answers if isinstance(answer, UnavailableError)]
        assert "no answer in time" in failure.message
        await until(lambda: not pool._members[1].well)
        for _ in range(6):
            await ask(pool)
        assert farm.chats[1] == 1

    farm.run(story, timeout_seconds=1)


def test_an_engine_that_is_late_once_is_neither_left_out_nor_forgotten(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One answer about its health that took 2 s left it out, and anybody could ask for that at /ready."""
    monkeypatch.setattr(engine_client, "HEALTH_TIMEOUT_SECONDS", 0.3)

    async def story(pool: EnginePool) -> None:
        for _ in range(3):
            await asyncio.gather(*(ask(pool, adapter()) for _ in range(3)))
        late = pool._members[1]
        farm.engines[1].deaf = MOST_SILENCES - 1
        assert (await pool.status()).each == (True, True, True)
        await until(lambda: farm.engines[1].deaf == 0)
        assert late.well
        assert late.client.knows_adapter(adapter().name)
        farm.engines[1].deaf = 100
        assert (await pool.status()).up
        await until(lambda: not late.well)
        assert (await pool.status()).each == (True, False, True)

    farm.run(story)


def test_a_single_engine_is_down_once_it_was_silent_in_a_row(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_client, "HEALTH_TIMEOUT_SECONDS", 0.3)

    async def story(pool: EnginePool) -> None:
        engine, client = farm.engines[0], pool._members[0].client
        engine.deaf = 1
        assert not await client.ready(), "it never was"
        assert await client.ready()
        engine.deaf = 1
        assert [await client.ready() for _ in range(2)] == [True, True]
        engine.deaf = MOST_SILENCES
        assert [await client.ready() for _ in range(MOST_SILENCES)] == [True] * (MOST_SILENCES - 1) + [False]
        assert await client.ready()
        farm.stop(0)
        assert not await client.ready()

    farm.run(story)


def test_however_many_ask_whether_it_is_ready_it_is_looked_at_once(farm: Farm) -> None:
    class SmallIndex(AsyncIndexClient):
        async def ready(self) -> bool:
            return True

    async def story(pool: EnginePool) -> None:
        readiness = Readiness(pool, SmallIndex(farm.folder / "index.sock"))
        for _ in range(3):
            seen = await asyncio.gather(*(readiness.look() for _ in range(50)))
            assert {one.engine.each for one in seen} == {(True, True, True)}
        assert [len(engine.asked) for engine in farm.engines] == [1, 1, 1]
        await asyncio.sleep(HOLDS_SECONDS)
        farm.stop(1)
        assert (await readiness.look()).engine.each == (True, False, True)

    farm.run(story)


def test_what_the_engine_refuses_is_told_and_harms_nobody(farm: Farm) -> None:
    async def story(pool: EnginePool) -> None:
        farm.engines[0].status = farm.engines[1].status = farm.engines[2].status = 422
        with pytest.raises(EngineError):
            await ask(pool)
        assert sum(farm.chats) == 1
        assert all(member.well for member in pool._members)

    farm.run(story)


@pytest.mark.parametrize("status", [302, 401, 403, 502, 503, 504])
def test_a_proxy_in_between_is_no_engine(farm: Farm, status: int) -> None:
    """A redirect leads to a host that nobody configured; a 401 speaks of our key, not of the client's."""

    async def story(pool: EnginePool) -> None:
        farm.engines[0].status = status
        for _ in range(6):
            assert await ask(pool) == "I am m."
        for engine in farm.engines:
            engine.status = status
        for _ in range(2):
            with pytest.raises(UnavailableError) as error:
                await ask(pool)
            assert error.value.status == 503

    farm.run(story)


def test_adapters_are_made_available_on_each_engine_that_needs_them(farm: Farm) -> None:
    farm.options = {"remote_adapters_path": "/mnt/adapters/"}

    async def story(pool: EnginePool) -> None:
        answers = await asyncio.gather(*(ask(pool, adapter()) for _ in range(6)))
        assert set(answers) == {"I am ft:m:local::one."}

    farm.run(story)
    assert farm.chats == [2, 2, 2]
    for engine in farm.engines:
        assert engine.loaded == {"ft:m:local::one": "/mnt/adapters/adapter-one"}
        assert engine.paths().count("/v1/load_lora_adapter") == 1


def test_among_equals_one_that_knows_the_adapter_is_asked(farm: Farm) -> None:
    async def story(pool: EnginePool) -> None:
        await ask(pool, adapter())
        for _ in range(4):
            await ask(pool, adapter())

    farm.run(story)
    assert sorted(farm.chats) == [0, 0, 5]


def test_many_who_ask_at_once_have_an_adapter_loaded_once(farm: Farm) -> None:
    async def story(pool: EnginePool) -> None:
        answers = await asyncio.gather(*(ask(pool, adapter()) for _ in range(30)))
        assert set(answers) == {"I am ft:m:local::one."}
        impatient = asyncio.create_task(ask(pool, adapter("ft:m:local::two")))
        await asyncio.sleep(0)
        impatient.cancel()
        assert await ask(pool, adapter("ft:m:local::two")) == "I am ft:m:local::two."

    farm.run(story)
    assert farm.verified.count("ft:m:local::one") <= 3
    for engine in farm.engines:
        assert engine.paths().count("/v1/load_lora_adapter") <= 2


def test_an_engine_that_was_started_again_gets_its_adapters_again(farm: Farm) -> None:
    async def story(pool: EnginePool) -> None:
        for _ in range(2):
            assert await ask(pool, adapter()) == "I am ft:m:local::one."
            for engine in farm.engines:
                engine.loaded.clear()

    farm.run(story)


def test_an_engine_that_cannot_load_an_adapter_does_not_hide_those_that_can(farm: Farm) -> None:
    farm.engines[0].refuse = farm.engines[1].refuse = "No adapter found for /mnt/adapters/adapter-one"

    async def story(pool: EnginePool) -> None:
        for _ in range(6):
            assert await ask(pool, adapter()) == "I am ft:m:local::one."
        assert all(member.well for member in pool._members)
        farm.engines[2].loaded.clear()
        farm.engines[2].refuse = "No adapter found for /mnt/adapters/adapter-one"
        with pytest.raises(AdapterRefusedError) as error:
            await ask(pool, adapter())
        assert error.value.status == 409
        assert "cannot load ft:m:local::one" in error.value.message
        assert "engine.remote_adapters_path" in str(error.value.hint)
        assert "/mnt" not in str(error.value.envelope())
        assert await ask(pool) == "I am m.", "the base is served all the same"

    farm.run(story)
    for engine in farm.engines:
        assert engine.paths().count("/v1/load_lora_adapter") <= 2, "it is not asked again and again"


def test_a_rank_above_the_engines_says_what_mends_it(farm: Farm) -> None:
    for engine in farm.engines:
        engine.refuse = "LoRA rank 64 is greater than max_lora_rank 16."

    async def story(pool: EnginePool) -> None:
        with pytest.raises(AdapterRefusedError, match="smaller ranks than 16") as error:
            await ask(pool, adapter())
        assert "engine.max_lora_rank" in str(error.value.hint)

    farm.run(story)


def test_a_deleted_adapter_is_forgotten_by_each(farm: Farm) -> None:
    async def story(pool: EnginePool) -> None:
        for _ in range(3):
            held = [asyncio.create_task(ask(pool, adapter())) for _ in range(3)]
            await asyncio.gather(*held)
        farm.stop(0)
        await pool.unload_adapter("ft:m:local::one")

    farm.run(story)
    assert [engine.loaded for engine in farm.engines[1:]] == [{}, {}]


def test_the_key_is_sent_and_a_wrong_one_is_ours(farm: Farm, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-engine\n")
    farm.options = {"api_key_file": file}
    for engine in farm.engines:
        engine.key = "sk-engine"

    async def story(pool: EnginePool) -> None:
        assert await ask(pool, adapter()) == "I am ft:m:local::one."
        for engine in farm.engines:
            engine.key = "another"
        with pytest.raises(UnavailableError, match="does not accept our key") as error:
            await ask(pool)
        assert isinstance(error.value, LocalLLMError)
        assert "sk-engine" not in str(error.value.envelope())

    farm.run(story)


def test_a_stream_that_ends_early_frees_its_place(farm: Farm) -> None:
    async def story(pool: EnginePool) -> None:
        farm.engines[0].busy = False
        async with pool.post(CHAT, {"model": "m", "messages": []}) as response:
            assert sum(member.in_flight for member in pool._members) == 1
            response.close()
        with pytest.raises(KeyError):
            async with pool.post(CHAT, {"model": "m", "messages": []}):
                raise KeyError
        assert [member.in_flight for member in pool._members] == [0, 0, 0]

    farm.run(story)
