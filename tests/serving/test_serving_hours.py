"""Serving hours: what the ledger holds of them is what /metrics tells, whoever counted and however it ended."""

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from local_llm import ledger
from local_llm.energy import EnergyMeter
from local_llm.ledger import HOUR_SECONDS
from local_llm.state import LedgerEntry, open_state
from serving.telemetry.hours import Pace, ServingHours

from ..local_llm.test_energy import Handmade
from .conftest import BASE
from .real_gateway import CHAT, Running, engine_at, running, serving, wait_for
from .slow_engine import SlowEngine

QUICK = Pace(look=0.01, write=0.02)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as made, engine_at(made.settings.place.socket("engine"), SlowEngine().answer):
        yield made


def ask(server: Running, times: int = 1, *, stream: bool = False) -> None:
    client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)
    for _ in range(times):
        answer = client.chat.completions.create(**CHAT, stream=stream)
        if stream:
            list(answer)


def rows(server: Running) -> list[LedgerEntry]:
    state = open_state(server.settings.place)
    try:
        return ledger.entries(state, state.local_project_id(), "serving")
    finally:
        state.close()


def total(server: Running, name: str) -> Any:
    return sum(row.facts.get(name) or 0 for row in rows(server))


def told(text: str, series: str, **labels: str) -> float:
    """Summed over all labels but those given, and over the processes."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == series and labels.items() <= sample.labels.items()
    )


def on_loop(server: Running, work: Coroutine[Any, Any, None]) -> None:
    asyncio.run_coroutine_threadsafe(work, server.loop).result()


def write(server: Running) -> None:
    on_loop(server, server.app.control.state.hours.write())


def assert_agree(server: Running, text: str, *, requests_since: int) -> None:
    assert total(server, "requests") == told(text, "local_llm_requests_total") + requests_since
    assert total(server, "refused") == told(text, "local_llm_refused_total")
    for kind in ("input", "cached", "output"):
        assert total(server, f"{kind}_tokens") == told(text, "local_llm_tokens_total", kind=kind) > 0
    answers = sum(row.facts["answers"].get("base", 0) for row in rows(server))
    assert answers == told(text, "local_llm_answer_seconds_count", strategy="base") > 0


def test_the_hour_holds_what_metrics_tells(server: Running) -> None:
    ask(server, 2)
    ask(server, stream=True)
    with pytest.raises(openai.NotFoundError):
        openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0).files.retrieve("file-none")
    write(server)
    text = httpx.get(f"{server.url}/metrics").text
    assert_agree(server, text, requests_since=0)
    ask(server, 3)
    write(server)
    assert_agree(server, httpx.get(f"{server.url}/metrics").text, requests_since=0)
    assert len(rows(server)) <= 2  # two where the hour struck meanwhile
    assert rows(server)[0].facts["model"] == BASE
    assert rows(server)[0].facts["engine_here"] is True


def test_stopping_writes_the_hour_that_was_begun(tmp_path: Path) -> None:
    with running(tmp_path) as server, engine_at(server.settings.place.socket("engine"), SlowEngine().answer):
        ask(server, 2)
        text = httpx.get(f"{server.url}/metrics").text
        assert rows(server) == []
    assert_agree(server, text, requests_since=1)  # that one
    assert total(server, "seconds") > 0
    assert total(server, "gateway_cpu_seconds") > 0


def test_a_restart_goes_on_in_the_same_hour(tmp_path: Path) -> None:
    with running(tmp_path) as server, engine_at(server.settings.place.socket("engine"), SlowEngine().answer):
        ask(server)
    with serving(server.settings) as again, engine_at(server.settings.place.socket("engine"), SlowEngine().answer):
        ask(again, 2)
    assert total(server, "requests") == 3
    assert sum(row.facts["answers"]["base"] for row in rows(server)) == 3


def hours_of(server: Running, **more: Any) -> ServingHours:
    return ServingHours(server.services, QUICK, **more)


def test_an_hour_ends_where_the_clock_says_and_the_next_begins_at_nothing(server: Running) -> None:
    moment = [HOUR_SECONDS * 1000.0 + 3500]
    hours = hours_of(server, clock=lambda: moment[0])
    on_loop(server, hours.begin())
    ask(server, 2)
    moment[0] += 200
    on_loop(server, hours.look())
    ask(server, 3)
    on_loop(server, hours.end())
    found = {row.facts["hour"] // HOUR_SECONDS: row.facts["requests"] for row in rows(server)}
    assert found == {1000: 2, 1001: 3}


def test_the_engine_and_the_work_are_told_apart_from_being_up(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        hours = hours_of(server)
        on_loop(server, hours.begin())
        on_loop(server, asyncio.sleep(0.05))
        on_loop(server, hours.look())
        on_loop(server, hours.write())
        assert total(server, "seconds") > 0
        assert total(server, "engine_seconds") == total(server, "busy_seconds") == 0
        with engine_at(server.settings.place.socket("engine"), SlowEngine().answer):
            wait_for(lambda: httpx.get(f"{server.url}/ready").json()["engine"] == "up")
            server.services.admission.running += 1  # a question that the engine is being asked
            on_loop(server, asyncio.sleep(0.05))
            on_loop(server, hours.look())
            on_loop(server, hours.write())
            server.services.admission.running -= 1
        assert 0 < total(server, "busy_seconds") == total(server, "engine_seconds") < total(server, "seconds")


def test_what_cannot_be_written_waits_and_is_counted_once(server: Running) -> None:
    ask(server, 2)
    with server.services.state._engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE ledger RENAME TO elsewhere")
    write(server)
    ask(server)
    with server.services.state._engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO ledger")
    write(server)
    write(server)
    assert total(server, "requests") == 3


def test_a_write_that_is_cancelled_on_the_way_is_counted_once(server: Running) -> None:
    """As at the end, which cancels what looks on and writes the rest: the database was busy."""
    hours = hours_of(server)
    on_loop(server, hours.begin())
    ask(server, 2)

    async def cancelled() -> None:
        task = asyncio.create_task(hours.write())
        await asyncio.sleep(0.3)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with server.services.state._engine.begin():  # nobody else writes meanwhile
        on_loop(server, cancelled())
    on_loop(server, hours.end())
    assert total(server, "requests") == 2


def test_energy_is_told_where_a_driver_counts_it(server: Running) -> None:
    counter = Handmade("package-0", [1000.0])
    hours = hours_of(server, meter=EnergyMeter([counter]))
    on_loop(server, hours.begin())
    for reading in (1250.0, 1300.0):
        counter.readings[:] = [reading]
        on_loop(server, hours.write())
    (row,) = rows(server)
    assert (row.facts["energy_joules"], row.facts["energy_of"]) == (300.0, ["package-0"])
    on_loop(server, hours.end())


def test_a_server_that_is_killed_has_written_all_but_the_last_minute(server: Running) -> None:
    """Nothing here ends before the figures are there."""
    hours = hours_of(server)
    on_loop(server, hours.begin())
    keeping = asyncio.run_coroutine_threadsafe(hours.keep(), server.loop)
    ask(server, 2)
    wait_for(lambda: total(server, "requests") == 2 and total(server, "output_tokens") == 14)
    assert Pace().write <= 60
    keeping.cancel()
    on_loop(server, hours.end())


def test_what_several_processes_counted_adds_up_as_in_metrics(tmp_path: Path) -> None:
    with (
        running(tmp_path, server__processes=2) as first,
        serving(first.settings, number=1) as second,
        engine_at(first.settings.place.socket("engine"), SlowEngine().answer),
    ):
        ask(first, 2)
        ask(second, 3)
        text = httpx.get(f"{first.url}/metrics").text
        write(second)
        assert total(first, "requests") == 3
        assert total(first, "seconds") == 0  # of the machine tells the first alone
    assert_agree(first, text, requests_since=1)
    assert told(text, "local_llm_answer_seconds_count") == 5
    assert total(first, "seconds") > 0
