"""`local-llm cost measure` through the real gateway: what is noted in the ledger is what the engine did."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from local_llm import ledger
from local_llm.cli.app import run
from local_llm.costs import measure
from local_llm.fileio import write_json
from local_llm.state import open_state

from .conftest import BASE
from .real_gateway import Running, engine_at, running
from .talking_engine import TalkingEngine, tokens_of

# An engine that reads and writes one request after the other, in this time.
SECONDS_PER_PREFILL_TOKEN = 5e-5
SECONDS_PER_DECODE_TOKEN = 1e-3


class TimedEngine(TalkingEngine):
    """It writes as many tokens as it is asked for, and takes its time over each, one request after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.free_at = 0.0

    async def chat(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        prompt, written = tokens_of(body), body["max_tokens"] if body.get("ignore_eos") else 1
        now = asyncio.get_running_loop().time()
        takes = prompt * SECONDS_PER_PREFILL_TOKEN + written * SECONDS_PER_DECODE_TOKEN
        self.free_at = max(now, self.free_at) + takes
        await asyncio.sleep(self.free_at - now)
        choice = {"index": 0, "message": {"role": "assistant", "content": "Aye."}, "finish_reason": "length"}
        usage = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
        answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": BASE}
        return web.json_response({**answer, "choices": [choice], "usage": usage})


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    with running(tmp_path) as made, engine_at(made.settings.place.socket("engine"), TimedEngine().answer):
        write_json(made.settings.place.run / "server.json", {"url": made.url})
        monkeypatch.setenv("LOCAL_LLM_HOME", str(made.settings.home))
        yield made


MEASURE = ("cost", "measure", "--prompt-words", "400", "--answer-tokens", "32", "--json")


def test_the_throughput_measured_is_the_engines(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*MEASURE, "--seconds", "1", "--concurrency", "4"]) == 0
    told = json.loads(capsys.readouterr().out)
    # A busy machine adds to both, and never takes away; ten times would be another engine.
    assert SECONDS_PER_DECODE_TOKEN * 0.7 < told["seconds_per_decode_token"] < SECONDS_PER_DECODE_TOKEN * 10
    assert 0 <= told["seconds_per_prefill_token"] < SECONDS_PER_PREFILL_TOKEN * 10
    state = open_state(server.settings.place)
    entry = ledger.latest(state, state.local_project_id(), "throughput")
    state.close()
    assert entry is not None
    assert (entry.id, entry.facts["model"], entry.facts["is_adapter"]) == (told["id"], BASE, False)
    # and the comparison takes it
    assert run(["cost", "compare", "--queries-per-month", "1000", "--hosted", "gpt-6-luna", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["usd_per_query"]["standing"] == "measured"
    assert rows[0]["usd_per_query"]["source"] == told["id"]


def test_where_more_at_once_get_no_answer_fewer_are_its_saturation(
    server: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter on a processor: of eight at once none ended within the run, and the command failed."""
    drive = measure.drive

    async def slow(*given: Any, concurrency: int, **rest: Any) -> Any:
        if concurrency > 2:
            raise measure.NoAnswerError("of 4 at once none was answered")
        return await drive(*given, concurrency=concurrency, **rest)

    monkeypatch.setattr(measure, "drive", slow)
    assert run([*MEASURE, "--seconds", "1", "--concurrency", "8"]) == 0
    told = capsys.readouterr()
    assert "4 at once: too slow for an answer in 1 s" in told.err
    assert json.loads(told.out)["concurrency"] in (1, 2)


def test_a_run_too_short_for_an_answer_notes_nothing(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*MEASURE, "--seconds", "0.02", "--concurrency", "1"]) == 1
    assert "set --seconds higher" in capsys.readouterr().err
    state = open_state(server.settings.place)
    assert ledger.latest(state, state.local_project_id(), "throughput") is None
    state.close()


def test_without_a_server_it_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_LLM_HOME", str(tmp_path))
    monkeypatch.setenv("LOCAL_LLM_SERVER__PORT", "9")
    assert run([*MEASURE, "--seconds", "1", "--concurrency", "1"]) == 1
    assert "python -m serving" in capsys.readouterr().err


def test_engines_elsewhere_are_not_measured_as_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_LLM_HOME", str(tmp_path))
    monkeypatch.setenv("LOCAL_LLM_ENGINE__URLS", '["http://elsewhere:8000"]')
    assert run([*MEASURE, "--seconds", "1"]) == 1
    assert "run elsewhere" in capsys.readouterr().err
