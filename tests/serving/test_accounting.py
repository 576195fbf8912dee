"""What answers took is counted, however they end, and told to those who look on."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

import httpx
import openai
import pytest

from local_llm.audit import ANSWERED, AuditQuery
from local_llm.keys import KeyStore
from local_llm.projects import ProjectStore
from serving.answering.accounting import estimated_tokens
from serving.limits import Limits

from .conftest import BASE
from .real_gateway import CHAT, DEADLINE_SECONDS, Running, engine_at, running, wait_for
from .recording_engine import SmallEngine
from .replies import Reply
from .slow_engine import SlowEngine

# "Hello", in tokens of four bytes.
PROMPT_TOKENS = 2


@pytest.fixture
def engine() -> SlowEngine:
    return SlowEngine(pieces=100, pause_seconds=0.05)


@pytest.fixture
def server(tmp_path: Path, engine: SlowEngine) -> Iterator[Running]:
    with running(tmp_path) as made, engine_at(made.settings.place.socket("engine"), engine.answer):
        yield made


def client_of(server: Running, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0, **options)


def spent(server: Running) -> int:
    """Tokens of whoever asks without a key."""
    return server.services.usage.tokens_today("")


@pytest.mark.parametrize("path", ["chat", "responses"])
def test_a_stream_that_is_left_costs_what_was_read_of_it(server: Running, engine: SlowEngine, path: str) -> None:
    """Clients that left before the engine told its count once used any number of tokens for nothing."""
    client = client_of(server)
    if path == "chat":
        with client.chat.completions.create(**CHAT, stream=True) as stream:
            for _ in range(5):
                next(stream)
    else:
        with client.responses.create(model=BASE, input="Hello", stream=True) as events:
            deltas = (event for event in events if event.type == "response.output_text.delta")
            for _ in range(5):
                next(deltas)
    wait_for(lambda: engine.running == 0)
    wait_for(lambda: spent(server) > 0)
    assert PROMPT_TOKENS + 5 <= spent(server) < PROMPT_TOKENS + 50


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_a_whole_answer_that_nobody_waits_for_costs_its_prompt(
    server: Running, engine: SlowEngine, path: str
) -> None:
    body = {"model": BASE, "input": "Hello"} if path == "responses" else CHAT
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/{path}", json=body, timeout=0.5)
    wait_for(lambda: engine.running == 0)
    wait_for(lambda: spent(server) == PROMPT_TOKENS)


def test_what_the_engine_tells_is_what_counts(server: Running, engine: SlowEngine) -> None:
    engine.pieces = 2
    list(client_of(server).chat.completions.create(**CHAT, stream=True))
    assert spent(server) == 11 + 7


def test_what_no_engine_was_asked_costs_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        with pytest.raises(openai.InternalServerError):
            client_of(server).chat.completions.create(**CHAT)
        assert spent(server) == 0


def test_a_response_beyond_a_limit_is_refused_before_anything_is_counted(tmp_path: Path) -> None:
    """The engine was asked to count the tokens of chats of keys that had nothing left, and of unknown models."""
    small = SmallEngine()
    with (
        running(tmp_path) as server,
        engine_at(server.settings.place.socket("engine"), small.answer),
    ):
        services = server.services
        key = KeyStore(services.state).create(services.state.local_project_id(), "ana")
        services.limits = Limits(limits_of=lambda _caller: Allowed())
        client = openai.OpenAI(api_key=key.secret, base_url=f"{server.url}/v1", max_retries=0)
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="nobody", input="Hello", truncation="auto")
        with pytest.raises(openai.RateLimitError):
            client.responses.create(model=BASE, input="Hello", truncation="auto")
        assert small.paths() == []


@dataclass(frozen=True)
class Allowed:
    requests_per_minute: int | None = 1
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"messages": [{"content": "12345678"}, {"content": None}]}, 3),
        ({"messages": [{"content": [{"type": "text", "text": "1234"}, {"type": "image_url"}]}]}, 2),
        ({"prompt": "12345678"}, 3),
        ({"prompt": [1, 2, 3]}, 3),
        ({"prompt": [[1, 2, 3], [4, 5]]}, 5),
        ({"prompt": ["1234", "1234"]}, 4),
        ({}, 0),
    ],
)
def test_a_prompt_is_estimated_by_its_text(body: dict[str, Any], tokens: int) -> None:
    assert estimated_tokens(body) == tokens


@pytest.mark.parametrize("path", ["chat", "responses"])
def test_an_engine_that_ends_in_mid_stream_is_seen_from_outside(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], path: str
) -> None:
    small = SmallEngine()
    small.reply = Reply("one two three four", breaks_after=3)
    with (
        running(tmp_path, telemetry__request_log=True) as server,
        engine_at(server.settings.place.socket("engine"), small.answer),
    ):
        client = client_of(server)
        if path == "chat":
            with pytest.raises(openai.APIError, match="ended while"):
                list(client.chat.completions.create(**CHAT, stream=True))
        else:
            events = list(client.responses.create(model=BASE, input="Hello", stream=True))
            assert events[-1].type == "response.failed"
        text = httpx.get(f"{server.url}/metrics").text
    assert 'local_llm_errors_total{code="unavailable"' in text
    assert line_of(capfd)["error"] == "unavailable"


def test_a_line_of_a_response_tells_its_tokens_and_its_first(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], engine: SlowEngine
) -> None:
    engine.pieces = 2
    with (
        running(tmp_path, telemetry__request_log=True) as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
    ):
        list(client_of(server).responses.create(model=BASE, input="Hello", stream=True))
    line = line_of(capfd)
    assert (line["input_tokens"], line["output_tokens"], line["cached_tokens"]) == (11, 7, 4)
    assert 0 < line["ttft_ms"] <= line["ms"]


def test_a_client_that_leaves_a_response_in_mid_stream_has_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], engine: SlowEngine
) -> None:
    with (
        running(tmp_path, telemetry__request_log=True) as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
    ):
        with client_of(server).responses.create(model=BASE, input="Hello", stream=True) as events:
            next(events)
        wait_for(lambda: engine.begun == 1 and engine.running == 0)
    assert line_of(capfd)["client_left"] is True


def line_of(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The first request that was logged."""
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith('{"time"')]
    return next(line for line in lines if line["event"] == "request")


def test_the_audit_log_holds_what_was_asked_and_answered_where_the_project_says_so(tmp_path: Path) -> None:
    small = SmallEngine()
    small.reply = Reply("It lies under the oak.")
    with (
        running(tmp_path) as server,
        engine_at(server.settings.place.socket("engine"), small.answer),
    ):
        client = client_of(server)
        client.chat.completions.create(**CHAT)
        ProjectStore(server.services.state).update(server.services.state.local_project_id(), log_content=True)
        client.chat.completions.create(**CHAT)
        list(client.chat.completions.create(**CHAT, stream=True))
        response = client.responses.create(model=BASE, input="Hello")
        events = list(client.responses.create(model=BASE, input="Hello", stream=True))
        ids = [response.id, events[-1].response.id]  # type: ignore[union-attr]
        wait_for(lambda: len(entries(server)) == 4)  # none of the first
        found = entries(server)
        assert [entry.detail["question"] for entry in found] == ["Hello"] * 4
        assert [entry.detail["answer"] for entry in found] == ["It lies under the oak."] * 4
        assert [entry.object_id for entry in found[2:]] == ids


def test_many_prompts_take_as_many_places_and_have_a_bound(server: Running, engine: SlowEngine) -> None:
    client = client_of(server)
    stream = client.completions.create(model=BASE, prompt=["one", "two", "three"], n=2, stream=True)
    next(iter(stream))
    assert server.services.admission.running == 6
    stream.close()
    for wrong, param in (({"n": 129}, "n"), ({"prompt": ["one"] * 1025, "n": 2}, "prompt")):
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(**{"model": BASE, "prompt": "one", **wrong})
        assert caught.value.param == param


def entries(server: Running) -> list[Any]:
    """The oldest first; they trail by a second."""
    return server.services.audit.find(AuditQuery(actions=[ANSWERED]))[0][::-1]


def test_a_response_that_outlasts_the_stop_ends_with_an_event(tmp_path: Path) -> None:
    engine = SlowEngine(pieces=1000, pause_seconds=0.1)
    with (
        running(tmp_path, server__drain_seconds=1) as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
    ):
        stream = client_of(server).responses.create(model=BASE, input="Hello", stream=True)
        next(iter(stream))
        server.server.should_exit = True
        last = list(stream)[-1]
    assert last.type == "response.failed"
    assert "being stopped" in last.response.error.message  # type: ignore[union-attr]


def test_whatever_has_not_begun_when_the_stop_is_over_gets_503(tmp_path: Path) -> None:
    engine = SlowEngine(pieces=1000, pause_seconds=0.1)
    with (
        running(tmp_path, server__drain_seconds=1) as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
        httpx.Client(base_url=server.url, timeout=DEADLINE_SECONDS) as client,
    ):
        request = client.build_request("POST", "/v1/responses", json={"model": BASE, "input": "Hello"})
        began = time.monotonic()
        Timer(0.5, lambda: setattr(server.server, "should_exit", True)).start()
        answer = client.send(request)
        assert time.monotonic() - began < 10
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "being stopped" in answer.json()["error"]["message"]
