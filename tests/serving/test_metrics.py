"""What is seen from outside: numbers, ids, a line a request, traces; nothing of what was asked."""

import json
import re
import time
import timeit
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import openai
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from local_llm.keys import KeyStore
from local_llm.permissions import Caller
from local_llm.settings import TelemetrySettings
from local_llm.state import Project, State
from serving.answering.events import TokenUsage
from serving.limits import Limits
from serving.telemetry.metrics import MOST_MODELS, OTHER, Metrics
from serving.telemetry.observer import Observer
from serving.telemetry.record import Record
from serving.telemetry.tracing import Tracing

from .conftest import BASE
from .real_gateway import CHAT, Running, engine_at, running, wait_for
from .slow_engine import SlowEngine

REPOSITORY = Path(__file__).parent.parent.parent
DASHBOARD = REPOSITORY / "serving" / "dashboards" / "local-llm.json"
PAGE = REPOSITORY / "docs" / "operating.md"


@pytest.fixture
def engine() -> SlowEngine:
    return SlowEngine()


@pytest.fixture
def server(tmp_path: Path, engine: SlowEngine) -> Iterator[Running]:
    with running(tmp_path) as made, engine_at(made.settings.place.socket("engine"), engine.answer):
        yield made


def client_of(server: Running) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """By name and labels; the process's label, which all of ours have, is left out."""
    return {
        (sample.name, frozenset(item for item in sample.labels.items() if item[0] != "process")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, series: str, **labels: str) -> float:
    return samples(text)[series, frozenset(labels.items())]


def test_answers_are_counted_with_their_tokens_and_times(server: Running) -> None:
    client = client_of(server)
    client.chat.completions.create(**CHAT)
    list(client.chat.completions.create(**CHAT, stream=True))
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**CHAT, "model": "nobody's"})
    client.models.list()
    text = httpx.get(f"{server.url}/metrics").text
    chats = {"route": "/v1/chat/completions"}
    assert value(text, "local_llm_requests_total", **chats, model=BASE, status="200") == 2
    assert value(text, "local_llm_requests_total", **chats, model="unknown", status="404") == 1
    assert value(text, "local_llm_requests_total", route="/v1/models", model="unknown", status="200") == 1
    assert value(text, "local_llm_errors_total", code="model_not_found") == 1
    for kind, count in (("input", 22), ("cached", 8), ("output", 14)):
        assert value(text, "local_llm_tokens_total", model=BASE, kind=kind) == count
    answers = {"model": BASE, "strategy": "base"}
    assert value(text, "local_llm_answer_seconds_count", **answers) == 2
    assert value(text, "local_llm_time_to_first_token_seconds_count", **answers) == 1
    assert value(text, "local_llm_requests_in_flight") == 1  # this one
    assert value(text, "local_llm_up", part="engine") == 1
    assert value(text, "local_llm_up", part="index") == 0


def test_the_engines_own_numbers_stand_behind_ours_under_their_own_names(server: Running) -> None:
    text = httpx.get(f"{server.url}/metrics").text
    assert value(text, "vllm:num_requests_running", engine="0", model_name="m") == 2
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))


def test_with_the_engine_down_ours_are_told_alone(gateway: TestClient) -> None:
    answer = gateway.get("/metrics", headers={"authorization": "Bearer any"})
    assert answer.status_code == 200
    assert value(answer.text, "local_llm_up", part="engine") == 0
    assert "vllm:" not in answer.text


def test_a_client_cannot_make_a_series(server: Running) -> None:
    with httpx.Client(base_url=server.url) as client:
        counts = []
        for number in range(20):
            client.get(f"/v1/files/file-{number}")
            client.get(f"/nowhere/{number}")
            client.post("/v1/chat/completions", json={**CHAT, "model": f"model-{number}"})
            client.request(f"X{number}", "/v1/models")
            client.get("/v1/models", params={"number": number})
            counts.append(len(samples(client.get("/metrics").text)))
        assert counts[0] < counts[1] == counts[-1]  # the first look at /metrics is counted in the second


def test_models_beyond_a_number_are_counted_together() -> None:
    metrics = Metrics()
    for number in range(MOST_MODELS + 50):
        metrics.begin()
        metrics.end(Record("POST", "/v1/chat/completions", model=f"ft:{number}", status=200), 0.1)
    rows = dict(metrics.requests.rows())
    assert len(rows) == MOST_MODELS
    assert rows["/v1/chat/completions", OTHER, "200"] == 51  # one name is kept for the unknown


def test_clients_that_left_are_counted(server: Running, engine: SlowEngine) -> None:
    engine.pause_seconds = 5
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=0.4)
    wait_for(lambda: engine.running == 0)
    text = httpx.get(f"{server.url}/metrics").text
    assert value(text, "local_llm_clients_left_total", route="/v1/chat/completions") == 1


@pytest.mark.parametrize(
    ("who", "path", "status"),
    [
        ("nobody", "/metrics", 401),
        ("member", "/metrics", 403),
        ("stranger", "/metrics", 403),
        ("admin", "/metrics", 403),
        ("owner", "/metrics", 200),
    ],
)
def test_on_a_box_with_keys_only_its_owners_read_from_elsewhere(
    gateway: TestClient, state: State, admin: Caller, who: str, path: str, status: int
) -> None:
    """starlette's client is no loopback address."""
    with state.session() as session:
        session.add(Project(id="proj_b", name="b", created_at=0, archived_at=None))
    keys = KeyStore(state)
    secrets = {
        "member": keys.create(admin.project_id, "m").secret,
        "stranger": keys.create("proj_b", "s", role="admin").secret,
        "admin": keys.create(admin.project_id, "a", role="admin").secret,
        "owner": keys.create(admin.project_id, "o", role="owner").secret,
    }
    headers = {"authorization": f"Bearer {secrets[who]}"} if who in secrets else {}
    assert gateway.get(path, headers=headers).status_code == status


def test_on_this_machine_no_key_is_needed_unless_a_proxy_speaks_for_others(server: Running) -> None:
    state = server.services.state
    KeyStore(state).create(state.local_project_id(), "ana")
    url = f"{server.url}/metrics"
    assert httpx.get(url).status_code == 200
    assert httpx.get(url, headers={"x-forwarded-for": "10.0.0.7"}).status_code == 401
    assert httpx.get(url, headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/v1/models"),
        ("GET", "/v1/files/none"),
        ("GET", "/nowhere"),
        ("PUT", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/v1/files/%00"),
    ],
)
def test_every_answer_carries_an_id_and_how_long_it_took(gateway: TestClient, method: str, path: str) -> None:
    answers = [gateway.request(method, path) for _ in range(2)]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 2
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", one) for one in ids)
    assert int(answers[0].headers["openai-processing-ms"]) >= 0
    assert answers[0].headers["openai-organization"] == "local"
    assert "access-control-allow-origin" not in answers[0].headers


def test_the_openai_client_tells_our_request_id(server: Running) -> None:
    client = client_of(server)
    whole = client.chat.completions.with_raw_response.create(**CHAT)
    assert whole.parse()._request_id == whole.headers["x-request-id"]
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**{**CHAT, "model": "x"})
    assert caught.value.request_id


def test_a_line_a_request_says_who_and_how_long_but_not_what(
    tmp_path: Path, engine: SlowEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        running(tmp_path, telemetry__request_log=True) as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
    ):
        state = server.services.state
        key = KeyStore(state).create(state.local_project_id(), "ana")
        client = openai.OpenAI(api_key=key.secret, base_url=f"{server.url}/v1", max_retries=0)
        secret = {"role": "user", "content": "the treasure lies under the oak"}
        list(client.chat.completions.create(model=BASE, messages=[secret], stream=True))
        httpx.get(f"{server.url}/v1/files/oak?after=treasure")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    asked, refused = [line for line in lines if line["event"] == "request"]
    assert asked["key"] == key.key.id
    assert (asked["route"], asked["model"], asked["status"]) == ("/v1/chat/completions", BASE, 200)
    assert (asked["input_tokens"], asked["output_tokens"], asked["cached_tokens"]) == (11, 7, 4)
    assert 0 < asked["ttft_ms"] <= asked["ms"]
    assert (refused["route"], refused["status"], refused["error"]) == (
        "/v1/files/{file_id}",
        401,
        "invalid_api_key",
    )
    assert "project" not in refused
    for word in ("treasure", "oak", key.secret):
        assert word not in json.dumps(lines)


def test_several_gateways_tell_everybodys_numbers(tmp_path: Path) -> None:
    """Two on one home; whichever is asked tells of both."""
    from serving.gateway import create_app

    with running(tmp_path, server__processes=2) as first:
        with TestClient(create_app(first.settings, 1), "http://127.0.0.1:8000") as second:
            second.get("/v1/models")
            text = httpx.get(f"{first.url}/metrics").text
            assert 'route="/v1/models",status="200"} 1.0' in text
            assert 'process="1"' in text
        assert 'process="1"' not in httpx.get(f"{first.url}/metrics").text


def test_the_dashboard_shows_what_is_exposed(server: Running) -> None:
    """Each name in it is one that /metrics has, or of the engine's one that its source has."""
    client = client_of(server)
    list(client.chat.completions.create(**CHAT, stream=True))
    server.services.observer.retrieved(None, 0.01)
    text = httpx.get(f"{server.url}/metrics").text
    exposed = {name for name, _ in samples(text)} | set(re.findall(r"^# HELP (\S+)", text, re.M))
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    named = {name for expression in expressions for name in re.findall(r"\blocal_llm_\w+", expression)}
    assert named
    told = set(re.findall(r"\blocal_llm_\w+", PAGE.read_text())) - {"local_llm_gateway_", "local_llm_gpu_"}
    assert told <= exposed | {name.removesuffix("_bucket") for name in exposed}
    gpu = {name for name in named if name.startswith("local_llm_gpu_")}
    assert named - gpu <= exposed
    assert gpu <= {f"local_llm_gpu_{name}" for name in ("memory_used_bytes", "memory_bytes", "utilization_ratio")}
    theirs = {name for expression in expressions for name in re.findall(r"\bvllm:\w+", expression)}
    vllm = Path(find_spec("vllm").submodule_search_locations[0])
    source = (vllm / "v1" / "metrics" / "loggers.py").read_text()
    assert {name for name in theirs if f'"{name.removesuffix("_bucket")}"' not in source} == set()


def test_a_trace_goes_through_us_to_the_engine(server: Running, engine: SlowEngine) -> None:
    exported = InMemorySpanExporter()
    tracing = Tracing(TelemetrySettings(traces_url="http://127.0.0.1:4318/v1/traces"), exported)
    server.services.observer.tracing = tracing
    trace, theirs = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{theirs}-01"}
    assert httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, headers=headers).status_code == 200
    httpx.get(f"{server.url}/v1/files/secret-name", headers=headers)
    wait_for(lambda: server.services.observer.metrics._running == 0)
    tracing.close()
    asked, listed = [span for span in exported.get_finished_spans() if span.name != "engine"]
    (below,) = [span for span in exported.get_finished_spans() if span.name == "engine"]
    assert (asked.name, listed.name) == ("POST /v1/chat/completions", "GET /v1/files/{file_id}")
    assert f"{asked.context.trace_id:032x}" == trace
    assert f"{asked.parent.span_id:016x}" == theirs
    assert below.parent.span_id == asked.context.span_id
    handed = {name.lower(): value for name, value in engine.headers[-1].items()}["traceparent"]
    assert handed == f"00-{trace}-{below.context.span_id:016x}-01"
    assert asked.attributes["gen_ai.usage.output_tokens"] == 7
    assert "Hello" not in str([span.to_json() for span in exported.get_finished_spans()])


def test_without_tracing_the_engine_gets_no_trace(server: Running, engine: SlowEngine) -> None:
    httpx.post(
        f"{server.url}/v1/chat/completions", json=CHAT, headers={"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    )
    assert "traceparent" not in {name.lower() for name in engine.headers[-1]}


def test_a_collector_that_is_down_holds_nobody_up(tmp_path: Path, engine: SlowEngine) -> None:
    with (
        running(tmp_path, telemetry__traces_url="http://127.0.0.1:9/v1/traces") as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
    ):
        assert httpx.post(f"{server.url}/v1/chat/completions", json=CHAT).elapsed.total_seconds() < 2


def test_looking_on_costs_a_question_microseconds(figures: dict[str, object]) -> None:
    """Processor time of all that is done for one question, its id, headers and limits among it; the best of many
    rounds, because others use this machine."""
    observer, limits = Observer(TelemetrySettings()), Limits()
    caller, usage = Caller("proj", "member", key_id="ana"), TokenUsage(100, 20, 50)
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}

    def counting() -> None:
        observer.metrics.begin()
        observer.answered(BASE, "base", usage, 0.1, record.began)
        observer.metrics.end(record, 0.2)

    def everything() -> None:
        one = observer.begin(scope, scope["path"])
        one.caller, one.status, one.model, one.strategy, one.usage = caller, 200, BASE, "base", usage
        limits.enter(caller)
        one.headers(b"local")
        limits.headers(caller)
        limits.spent(caller, 150)
        observer.answered(BASE, "base", usage, 0.1, one.began)
        observer.end(one)

    record = Record("POST", "/v1/chat/completions", status=200, model=BASE)
    for name, act in (("counting", counting), ("all of it", everything)):
        seconds = min(timeit.repeat(act, timer=time.process_time, number=2000, repeat=15)) / 2000
        figures[f"looking on at a question, {name}"] = f"{seconds * 1e6:.1f} µs"
        assert seconds < 20e-6  # a quarter of it on an idle machine


def test_a_gpu_is_told_with_what_its_driver_says(
    gateway: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho '0, NVIDIA H100 80GB HBM3, 81559, 1024, 37, 41, 118.25'\n"
                      "echo '1, NVIDIA T4, 15360, 0, [N/A], 30, [Not Supported]'\n")  # fmt: skip
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    text = gateway.get("/metrics", headers={"authorization": "Bearer any"}).text
    first, second = {"gpu": "0", "name": "NVIDIA H100 80GB HBM3"}, {"gpu": "1", "name": "NVIDIA T4"}
    assert value(text, "local_llm_gpu_memory_bytes", **first) == 81559 * 1024**2
    assert value(text, "local_llm_gpu_utilization_ratio", **first) == pytest.approx(0.37)
    assert value(text, "local_llm_gpu_power_watts", **first) == 118.25
    assert value(text, "local_llm_gpu_temperature_celsius", **second) == 30
    assert ("local_llm_gpu_power_watts", frozenset(second.items())) not in samples(text)
    driver.write_text("#!/bin/sh\necho 'Failed to initialize NVML'; exit 9\n")
    assert "local_llm_gpu_" not in gateway.get("/metrics", headers={"authorization": "Bearer any"}).text
