"""The gateway's benchmark in small: its engine speaks as vLLM does, its clients count rightly, leavers are seen."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from ..conftest import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "bench_gateway.py"
sys.path.insert(0, str(SCRIPT.parent))

from gateway_bench import endurance, load, report, rounds  # noqa: E402
from gateway_bench.engine import Behaviour  # noqa: E402
from gateway_bench.load import Client, Seen  # noqa: E402
from gateway_bench.request import chat_request  # noqa: E402
from gateway_bench.ways import direct  # noqa: E402
from gateway_bench.world import MODEL, Cores, World  # noqa: E402

TOKENS = 5
KEY = "sk-local-of-the-benchmark"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The synthetic engine in its own process. This one is held to a core meanwhile, as in a benchmark."""
    work, core = tmp_path_factory.mktemp("work"), min(os.sched_getaffinity(0))
    with World(work, Cores(core, core), KEY, work / "engine.sock") as opened:
        yield opened


@pytest.fixture
def engine(world: World) -> World:
    world.behave(Behaviour(TOKENS))
    return world


@pytest.fixture
def client(engine: World) -> openai.OpenAI:
    return openai.OpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{engine.port}/v1", max_retries=0)


def test_the_openai_client_reads_the_engines_whole_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
    assert answer.model == MODEL
    assert answer.choices[0].finish_reason == "length"
    assert len((answer.choices[0].message.content or "").split()) == TOKENS
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + TOKENS
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens


@pytest.mark.parametrize("with_usage", [True, False])
def test_the_openai_client_reads_the_engines_streams(client: openai.OpenAI, with_usage: bool) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
            stream_options={"include_usage": with_usage},
        )
    )
    said = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert said[0].delta.role == "assistant"
    assert len([choice for choice in said if choice.delta.content]) == TOKENS
    assert [choice.finish_reason for choice in said] == [None] * TOKENS + ["length"]
    assert (chunks[-1].usage is not None) == with_usage
    assert len(chunks) == 1 + TOKENS + with_usage


def test_models_and_adapters_are_answered(client: openai.OpenAI, engine: World) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    client.post("/load_lora_adapter", body={"lora_name": "a", "lora_path": "/a"}, cast_to=str)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_requests_and_events_are_counted_over_both_kinds_of_socket(engine: World) -> None:
    for address in (engine.socket, ("127.0.0.1", engine.port)):
        asked = [chat_request(MODEL, KEY, stream=bool(number % 2)) for number in range(20)]
        seen = load.once(address, iter(asked), clients=4)
        assert (len(seen.latencies), seen.errors) == (20, 0)
        assert seen.events == 10 * (TOKENS + 2)  # the role, each token, usage
    assert engine.counts().open == 0


def test_a_run_for_a_time_counts_what_ends_within_it(engine: World) -> None:
    ends: list[float] = []
    request = chat_request(MODEL, KEY, stream=False)
    seen = load.repeated(
        engine.socket, request, 2, warm_seconds=0.1, seconds=0.3, at_ends=lambda: ends.append(time.monotonic())
    )
    assert len(seen.latencies) > 20
    assert seen.errors == 0
    assert 0.25 < seen.seconds < 1
    assert len(ends) == 2


def test_stamped_events_tell_how_long_they_took(engine: World) -> None:
    engine.behave(Behaviour(TOKENS, step_seconds=0.02, stamped=True))
    seen = load.once(engine.socket, iter([chat_request(MODEL, KEY, stream=True)]), clients=1)
    assert len(seen.delays) == TOKENS
    assert all(0 <= delay < 0.5 for delay in seen.delays)
    assert seen.seconds > TOKENS * 0.02


@pytest.mark.slow
def test_the_engine_sees_clients_that_are_killed(engine: World) -> None:
    left = engine.counts().left
    found = endurance.leave(engine, direct(engine), clients=20, rounds=2)
    assert [one["answers"] for one in found] == ["streams", "whole answers"]
    for one in found:
        assert one["still_open"] == [0]
        assert max(one["seconds_until_free"]) < 1
        assert one["descriptors"][0] == one["descriptors"][-1]
    assert engine.counts().left == left + 4 * 20


def test_an_event_cut_anywhere_is_counted_once() -> None:
    asyncio.run(cut_everywhere())


async def cut_everywhere() -> None:
    event = b'data: {"choices":[{"delta":{"content":"100000000000000"}}]}\n\n'
    whole = event * 3 + b"data: [DONE]\n\n"
    for cut in range(1, len(whole)):
        client = Client(seen := Seen(), lambda: None)
        client._tail, client._events, client._ended, client._read_at = b"", 0, False, 100_000_000_000_000
        client.on_body(whole[:cut])
        client.on_body(whole[cut:])
        assert (seen.events, len(seen.delays), client._ended) == (3, 3, True), cut


def test_ratios_are_taken_within_rounds_and_goals_judged() -> None:
    """10, 20, 90 against 10, 10, 90: ratios 1, 2, 1, whose median is 1; the ratio of the medians would be 2."""
    paired = [(10, 10), (20, 10), (90, 90)]
    figures = [
        {"way": way, "clients": 32, "round": turn, "requests_per_second": rate}
        for turn, rates in enumerate(paired)
        for way, rate in zip(("ours", "nginx"), rates, strict=True)
    ]
    assert rounds.ratio(figures, "ours", "nginx", 32, "requests_per_second") == 1
    assert rounds.ratio(figures, "ours", "litellm", 32, "requests_per_second") is None
    judged = report.judged({"requests": figures})
    assert judged == [{"name": "requests/s over nginx's, 32 clients", "ours": 1, "goal": 0.25, "met": True}]


@pytest.mark.slow
def test_the_small_run_measures_ours_beside_direct(tmp_path: Path) -> None:
    core = str(min(os.sched_getaffinity(0)))
    line = [sys.executable, str(SCRIPT), "--work", str(tmp_path), "--only", "direct", "bare", "ours"]
    line += ["--cores", core, core, "--rounds", "1", "--seconds", "0.3", "--warm", "0.1"]
    line += ["--phase", "requests", "streams", "hold", "memory"]
    line += ["--streams", "20", "--hold-seconds", "1", "--requests", "100"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ["PYTHONPATH"]])}
    done = subprocess.run(line, capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["skipped"] == {}
    for way in ("direct", "bare", "ours"):
        assert [one["errors"] for one in rounds.of(result["requests"], way, 32)] == [0]
        assert [one["errors"] for one in rounds.of(result["streams"], way, "paced")] == [0]
    assert result["hold"]["dropped"] == 0
    assert result["memory"]["answered"] == 100
