"""What a key may use: refused with the time to come back, told in OpenAI's headers, nobody else held up."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from local_llm.errors import RateLimitError
from local_llm.keys import KeyStore
from local_llm.permissions import Caller
from serving.limits import DAY_SECONDS, MOST_KEYS, Limits

from .real_gateway import CHAT, Running, engine_at, running, wait_for
from .slow_engine import SlowEngine

ANA, BOB = (Caller("proj", "member", key_id=name) for name in ("ana", "bob"))


@dataclass(frozen=True)
class Allowed:
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limits_with(allowed: Allowed, clock: Clock, **more: object) -> Limits:
    return Limits(limits_of=lambda caller: allowed if caller == ANA else None, clock=clock, **more)  # type: ignore[arg-type]


def test_requests_are_refused_beyond_the_limit_and_come_back_one_by_one() -> None:
    clock = Clock()
    limits = limits_with(Allowed(requests_per_minute=6), clock)
    for _ in range(6):
        limits.enter(ANA)
    with pytest.raises(RateLimitError) as caught:
        limits.enter(ANA)
    assert caught.value.retry_after_seconds == pytest.approx(10)  # 60 s / 6
    assert caught.value.limit == "requests_per_minute"
    limits.enter(BOB)
    clock.now += 9.9
    with pytest.raises(RateLimitError):
        limits.enter(ANA)
    clock.now += 0.2
    limits.enter(ANA)
    with pytest.raises(RateLimitError):
        limits.enter(ANA)


def test_nobody_saves_up_more_than_a_minute() -> None:
    clock = Clock()
    limits = limits_with(Allowed(requests_per_minute=3), clock)
    clock.now += 3600
    for _ in range(3):
        limits.enter(ANA)
    with pytest.raises(RateLimitError):
        limits.enter(ANA)


def test_tokens_beyond_the_limit_are_a_debt_that_is_waited_for() -> None:
    clock = Clock()
    limits = limits_with(Allowed(tokens_per_minute=600), clock)  # ten a second
    limits.enter(ANA)
    limits.spent(ANA, 700)
    with pytest.raises(RateLimitError) as caught:
        limits.enter(ANA)
    assert caught.value.retry_after_seconds == pytest.approx(10.1)  # 100 owed, and one to ask with
    clock.now += 10.2
    limits.enter(ANA)


def test_a_refused_request_costs_none() -> None:
    clock = Clock()
    limits = limits_with(Allowed(requests_per_minute=10, tokens_per_minute=60), clock)
    limits.spent(ANA, 60)
    for _ in range(5):
        with pytest.raises(RateLimitError):
            limits.enter(ANA)
    assert dict(limits.headers(ANA))[b"x-ratelimit-remaining-requests"] == b"10"


def test_a_days_tokens_are_counted_by_who_keeps_account() -> None:
    used = {"ana": 999}
    limits = limits_with(Allowed(tokens_per_day=1000), Clock(), tokens_today=used.__getitem__)
    limits.enter(ANA)
    used["ana"] = 1000
    with pytest.raises(RateLimitError, match="1,000 tokens today") as caught:
        limits.enter(ANA)
    assert caught.value.retry_after_seconds is not None
    assert 0 < caught.value.retry_after_seconds <= DAY_SECONDS
    assert time.time() + caught.value.retry_after_seconds == pytest.approx(
        -(-time.time() // DAY_SECONDS) * DAY_SECONDS, abs=1
    )


def test_several_gateways_each_keep_their_part() -> None:
    limits = limits_with(Allowed(requests_per_minute=8), Clock(), processes=4)
    for _ in range(2):
        limits.enter(ANA)
    with pytest.raises(RateLimitError):
        limits.enter(ANA)


def test_a_changed_limit_holds_at_once() -> None:
    allowed = {"now": Allowed(requests_per_minute=2)}
    limits = Limits(limits_of=lambda _: allowed["now"], clock=Clock())
    limits.enter(ANA)
    allowed["now"] = Allowed(requests_per_minute=5)
    for _ in range(4):
        limits.enter(ANA)
    with pytest.raises(RateLimitError):
        limits.enter(ANA)


def test_headers_tell_of_the_limits_that_are_set_and_no_others() -> None:
    clock = Clock()
    limits = limits_with(Allowed(requests_per_minute=60, tokens_per_minute=6000), clock)
    limits.enter(ANA)
    limits.spent(ANA, 3000)
    assert dict(limits.headers(ANA)) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
        b"x-ratelimit-limit-tokens": b"6000",
        b"x-ratelimit-remaining-tokens": b"3000",
        b"x-ratelimit-reset-tokens": b"30s",
    }
    assert limits.headers(BOB) == limits.headers(None) == []


def test_keys_without_end_do_not_fill_the_memory() -> None:
    clock = Clock()
    limits = Limits(limits_of=lambda _: Allowed(requests_per_minute=60), clock=clock)
    for number in range(MOST_KEYS + 10):
        limits.enter(Caller("proj", "member", key_id=f"key-{number}"))
        clock.now += 0.01
    assert len(limits._buckets) < MOST_KEYS


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    engine = SlowEngine()
    with running(tmp_path) as made, engine_at(made.settings.place.socket("engine"), engine.answer):
        yield made


def test_a_client_beyond_its_limit_gets_429_and_when_to_come_back(server: Running) -> None:
    services = server.services
    keys, project = KeyStore(services.state), services.state.local_project_id()
    ana, bob = keys.create(project, "ana"), keys.create(project, "bob")
    allowed = {ana.key.id: Allowed(requests_per_minute=2, tokens_per_minute=1000)}
    services.limits = Limits(limits_of=lambda caller: allowed.get(caller.key_id or ""))
    client = openai.OpenAI(api_key=ana.secret, base_url=f"{server.url}/v1", max_retries=0)
    first = client.chat.completions.with_raw_response.create(**CHAT)
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    list(client.chat.completions.create(**CHAT, stream=True))
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**CHAT)
    answer = caught.value.response
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert 964 <= int(answer.headers["x-ratelimit-remaining-tokens"]) < 1000  # two answers of 18, and some time
    assert caught.value.code == "rate_limit_exceeded"
    assert client.models.list().data  # what is not asked of a model does not count
    openai.OpenAI(api_key=bob.secret, base_url=f"{server.url}/v1", max_retries=0).chat.completions.create(**CHAT)
    text = httpx.get(f"{server.url}/metrics").text
    assert 'local_llm_refused_total{limit="requests_per_minute",process="0"} 1.0' in text


def test_too_many_at_once_are_told_to_come_back(tmp_path: Path) -> None:
    engine = SlowEngine(pieces=10, pause_seconds=0.1)
    with (
        running(tmp_path, server__max_running_requests=1, server__max_waiting_requests=0) as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
    ):
        client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)
        stream = client.chat.completions.create(**CHAT, stream=True)
        next(stream)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**CHAT)
        assert caught.value.response.headers["retry-after"] == "1"
        list(stream)
        # The client has read the last piece a moment before the gateway gives its place away.
        wait_for(lambda: server.services.admission.running == 0)
        client.chat.completions.create(**CHAT)
        assert 'local_llm_refused_total{limit="busy",process="0"} 1.0' in httpx.get(f"{server.url}/metrics").text
