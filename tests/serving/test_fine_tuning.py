"""/v1/fine_tuning/jobs as the openai client uses it, and what it answers to what cannot be right."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.testclient import TestClient

from local_llm.adapters import AdapterRegistry, AdapterRun, checkpoint_name
from local_llm.errors import LocalLLMError, LockedError
from local_llm.files import FINE_TUNE, FileStore
from local_llm.keys import KeyStore
from local_llm.models import ModelStore
from local_llm.permissions import Caller, local_admin
from local_llm.settings import Settings
from local_llm.state import Job, Project, State
from serving.error_responses import respond
from training import leases
from training.leases import Lease

from ..handmade_adapters import write_adapter
from .conftest import BASE, chat_lines, preference_lines
from .test_files import refused

JOBS = "/v1/fine_tuning/jobs"
AUTO = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}


@pytest.fixture
def file_id(client: openai.OpenAI) -> str:
    return client.files.create(file=("train.jsonl", chat_lines()), purpose="fine-tune").id


@pytest.fixture
def preferences(client: openai.OpenAI, settings: Settings, state: State, admin: Caller) -> str:
    store = FileStore(settings, state)
    return store.add([preference_lines()], filename="p.jsonl", purpose=FINE_TUNE, project_id=admin.project_id).id


def running(state: State, job_id: str) -> Lease:
    return leases.claim(state, job_id, local_admin(state.local_project_id()), "trainer")


# What the client sees of a job's life


def test_a_job_is_queued_listed_and_cancelled(client: openai.OpenAI, file_id: str) -> None:
    asked = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.0}
    job = client.fine_tuning.jobs.create(
        training_file=file_id,
        model="gpt-4o-mini-2024-07-18",
        suffix="support-tone",
        seed=7,
        hyperparameters=asked,  # type: ignore[arg-type]
        metadata={"team": "support"},
        integrations=None,
    )
    assert (job.object, job.status, job.model, job.seed) == ("fine_tuning.job", "queued", BASE, 7)
    assert (job.metadata, job.result_files, job.fine_tuned_model) == ({"team": "support"}, [], None)
    assert job.hyperparameters.model_dump() == asked
    assert job.method is not None
    assert job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.model_dump() == asked
    assert [row.id for row in client.fine_tuning.jobs.list()] == [job.id]
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    events = client.fine_tuning.jobs.list_events(job.id).data
    assert [event.message for event in events] == [
        "Fine-tuning job cancelled", f"Created fine-tuning job: {job.id}",
    ]  # fmt: skip
    assert client.fine_tuning.jobs.retrieve(job.id).finished_at is not None


def test_preference_training_has_a_beta_in_both_places(client: openai.OpenAI, preferences: str) -> None:
    job = client.fine_tuning.jobs.create(
        training_file=preferences,
        model=BASE,
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 2}}},
    )
    expected = {**AUTO, "beta": 0.2, "n_epochs": 2}
    assert job.hyperparameters.model_dump() == expected
    assert job.method is not None
    assert job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None
    assert job.method.dpo.hyperparameters.model_dump() == expected


def test_what_auto_stood_for_is_shown_once_it_is_known(client: openai.OpenAI, state: State, file_id: str) -> None:
    job = client.fine_tuning.jobs.create(training_file=file_id, model=BASE)
    assert job.hyperparameters.model_dump() == AUTO
    lease = running(state, job.id)
    resolved = {"n_epochs": 10, "batch_size": 8, "learning_rate_multiplier": 4.63}
    leases.set_hyperparameters(state, lease, resolved)
    leases.set_result_files(state, lease, ["file-results"])
    leases.succeed(state, lease, fine_tuned_model="ft:x", trained_tokens=5)
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert (done.status, done.result_files, done.trained_tokens) == ("succeeded", ["file-results"], 5)
    assert done.hyperparameters.model_dump() == resolved
    assert done.model_dump()["method"]["supervised"]["hyperparameters"] == resolved


def test_a_failed_job_tells_why(client: openai.OpenAI, state: State, file_id: str) -> None:
    job = client.fine_tuning.jobs.create(training_file=file_id, model=BASE)
    leases.fail(state, running(state, job.id), LocalLLMError("no memory", param="training_file"))
    failed = client.fine_tuning.jobs.retrieve(job.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.message, failed.error.param) == (
        "server_error", "no memory", "training_file",
    )  # fmt: skip


def test_our_own_options_travel_in_the_extra_body(client: openai.OpenAI, file_id: str) -> None:
    lora = {"rank": 8, "alpha": 16, "rslora": True, "quantization": "4bit"}
    job = client.fine_tuning.jobs.create(training_file=file_id, model=BASE, extra_body={"lora": lora})
    assert job.model_dump()["method"]["lora"] == lora
    assert client.fine_tuning.jobs.retrieve(job.id) == job


def test_a_job_is_paused_and_resumed(client: openai.OpenAI, state: State, file_id: str) -> None:
    job = client.fine_tuning.jobs.create(training_file=file_id, model=BASE)
    running(state, job.id)
    assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    assert [row.status for row in client.fine_tuning.jobs.list()] == ["paused"]
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id)]
    assert messages[:2] == [
        "Fine-tuning job resumed",
        "Fine-tuning job paused; once resumed it goes on from its last checkpoint",
    ]


# Lists


def test_the_client_pages_through_jobs_events_and_checkpoints(
    client: openai.OpenAI, state: State, file_id: str
) -> None:
    ids = {client.fine_tuning.jobs.create(training_file=file_id, model=BASE).id for _ in range(5)}
    listed = [job.id for job in client.fine_tuning.jobs.list(limit=2)]
    assert (len(listed), set(listed)) == (5, ids)
    lease = running(state, listed[0])
    for step in range(1, 6):
        leases.report_event(state, lease, f"Step {step}/5", data={"step": step})
        leases.add_checkpoint(state, lease, step_number=step, model_name=f"ft:{step}", metrics={})
    events = list(client.fine_tuning.jobs.list_events(lease.job_id, limit=2))
    assert [event.message for event in events[:5]] == [f"Step {step}/5" for step in range(5, 0, -1)]
    assert (events[0].type, events[0].data, len(events)) == ("metrics", {"step": 5}, 7)
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(lease.job_id, limit=2))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [5, 4, 3, 2, 1]


def test_a_checkpoint_is_the_apis(gateway: TestClient, client: openai.OpenAI, state: State, file_id: str) -> None:
    job = client.fine_tuning.jobs.create(training_file=file_id, model=BASE)
    empty = gateway.get(f"{JOBS}/{job.id}/checkpoints").json()
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    metrics = {"train_loss": 1.5, "full_valid_loss": 2.5, "full_valid_mean_token_accuracy": 0.5}
    leases.add_checkpoint(
        state, running(state, job.id), step_number=4, model_name="ft:m:local::abc:ckpt-step-4", metrics=metrics
    )
    (found,) = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert found.id.startswith("ftckpt_")
    assert (found.object, found.fine_tuning_job_id) == ("fine_tuning.job.checkpoint", job.id)
    assert (found.fine_tuned_model_checkpoint, found.step_number) == ("ft:m:local::abc:ckpt-step-4", 4)
    assert found.metrics.model_dump(exclude_none=True) == {"step": 4, **metrics}
    page = gateway.get(f"{JOBS}/{job.id}/checkpoints").json()
    assert page["first_id"] == page["last_id"] == found.id


def test_a_model_that_a_key_may_not_see_is_named_to_it_by_no_job(
    gateway: TestClient, client: openai.OpenAI, state: State, settings: Settings, tmp_path: Path, file_id: str
) -> None:
    job = client.fine_tuning.jobs.create(training_file=file_id, model=BASE)
    lease, name = running(state, job.id), f"ft:{BASE}:local::abcd1234"
    registry, base = AdapterRegistry(settings, state), ModelStore(settings.place.models).get(BASE)
    run = AdapterRun(data_sha256="d", settings={}, metrics={}, versions={}, job_id=job.id)
    for step, allow in ((4, ["user:ana"]), (None, ["user:ana"])):
        named = name if step is None else checkpoint_name(name, step)
        registry.publish(
            write_adapter(tmp_path / f"adapter-{step}"), base=base, name=named, project_id=state.local_project_id(),
            run=run, step_number=step, allow=allow,
        )  # fmt: skip
        leases.add_checkpoint(state, lease, step_number=step or 8, model_name=named, metrics={})
    leases.succeed(state, lease, fine_tuned_model=name, trained_tokens=1)
    for principal, sees in (("user:ana", True), ("user:ben", False)):
        key = KeyStore(state).create(state.local_project_id(), principal, principals=[principal])
        headers = {"authorization": f"Bearer {key.secret}"}

        def told(path: str, headers: dict[str, str] = headers) -> Any:
            answer = gateway.get(path, headers=headers)
            assert answer.status_code == 200
            return answer.json()

        for shown in (told(f"{JOBS}/{job.id}"), told(JOBS)["data"][0]):
            assert (shown["status"], shown["fine_tuned_model"]) == ("succeeded", name if sees else None)
        assert len(told(f"{JOBS}/{job.id}/checkpoints")["data"]) == (2 if sees else 0)
        assert (name in str(told(f"{JOBS}/{job.id}/events"))) is sees
        assert (name in str(told("/v1/models"))) is sees
        chat = {"model": name, "messages": [{"role": "user", "content": "x"}]}
        status = gateway.post("/v1/chat/completions", json=chat, headers=headers).status_code
        assert status == (503 if sees else 404)  # no engine runs here


def test_jobs_are_filtered_by_metadata(gateway: TestClient, client: openai.OpenAI, file_id: str) -> None:
    def made(**options: Any) -> str:
        return client.fine_tuning.jobs.create(training_file=file_id, model=BASE, **options).id

    both, one, none = made(metadata={"team": "a", "run[1]": "x y&z"}), made(metadata={"team": "a"}), made()
    for pairs, expected in (
        ({"team": "a"}, {both, one}),
        ({"team": "a", "run[1]": "x y&z"}, {both}),
        ({"team": "b"}, set()),
    ):
        assert {job.id for job in client.fine_tuning.jobs.list(metadata=pairs, limit=1)} == expected
    without = client.fine_tuning.jobs.list(extra_query={"metadata": "null"})
    assert [job.id for job in without] == [none]
    assert len(list(client.fine_tuning.jobs.list(metadata=None))) == 3  # the client sends nothing then
    for query in ("metadata=a", "metadata[]=a", "metadata=null&metadata[k]=v", "metadata[k]=v&metadata[k]=w"):
        refused(gateway.get(f"{JOBS}?{query}"), "metadata")


def test_places_in_other_lists_are_not_found(
    gateway: TestClient, client: openai.OpenAI, state: State, admin: Caller, file_id: str
) -> None:
    first, second = (client.fine_tuning.jobs.create(training_file=file_id, model=BASE).id for _ in range(2))
    event = client.fine_tuning.jobs.list_events(first).data[0].id
    checkpoint = leases.add_checkpoint(
        state, running(state, first), step_number=1, model_name="ft:x", metrics={}
    ).id
    for path, after in (("", "ftjob-none"), (f"/{second}/events", event), (f"/{second}/checkpoints", checkpoint)):
        refused(gateway.get(f"{JOBS}{path}", params={"after": after}), "after", 404)
    for limit in ("0", "101", "many"):
        for path in ("", f"/{first}/events", f"/{first}/checkpoints"):
            refused(gateway.get(f"{JOBS}{path}", params={"limit": limit}), "limit")


def test_another_projects_jobs_are_not_found(
    gateway: TestClient, client: openai.OpenAI, state: State, admin: Caller, file_id: str
) -> None:
    job = client.fine_tuning.jobs.create(training_file=file_id, model=BASE).id
    with state.session() as session:
        session.add(Project(id="proj_b", name="b", created_at=0, archived_at=None))
    other = {"authorization": f"Bearer {KeyStore(state).create('proj_b', 'bob', role='admin').secret}"}
    for path in ("", "/events", "/checkpoints"):
        refused(gateway.get(f"{JOBS}/{job}{path}", headers=other), "fine_tuning_job_id", 404)
    for path in ("/cancel", "/pause", "/resume"):
        refused(gateway.post(f"{JOBS}/{job}{path}", headers=other), "fine_tuning_job_id", 404)
    assert gateway.get(JOBS, headers=other).json()["data"] == []
    refused(gateway.get(JOBS, params={"after": job}, headers=other), "after", 404)
    body = {"training_file": file_id, "model": BASE}
    refused(gateway.post(JOBS, json=body, headers=other), "training_file")


# What cannot be right


@pytest.mark.parametrize(
    ("change", "param", "status"),
    [
        ({"model": None}, "model", 400),
        ({"model": 3}, "model", 400),
        ({"model": "llama-99"}, "model", 404),
        ({"model": "../" + BASE}, "model", 404),
        ({"model": "m" * 100_000}, "model", 404),
        ({"model": f"ft:{BASE}:local::abc"}, "model", 400),
        ({"training_file": None}, "training_file", 400),
        ({"training_file": 1}, "training_file", 400),
        ({"training_file": "file-nope"}, "training_file", 400),
        ({"training_file": "../../etc/passwd"}, "training_file", 400),
        ({"training_file": "f" * 100_000}, "training_file", 400),
        ({"validation_file": "file-nope"}, "validation_file", 400),
        ({"validation_file": ["x"]}, "validation_file", 400),
        ({"suffix": "../x"}, "suffix", 400),
        ({"suffix": "a:b"}, "suffix", 400),
        ({"suffix": "a\x00b"}, "suffix", 400),
        ({"suffix": "x" * 65}, "suffix", 400),
        ({"suffix": 5}, "suffix", 400),
        ({"seed": -1}, "seed", 400),
        ({"seed": 1.5}, "seed", 400),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", 400),
        ({"hyperparameters": {"batch_size": "8"}}, "hyperparameters.batch_size", 400),
        ({"hyperparameters": {"learning_rate": 1}}, "hyperparameters.learning_rate", 400),
        ({"hyperparameters": 3}, "hyperparameters", 400),
        ({"method": {"type": "reinforcement", "reinforcement": {}}}, "method.type", 400),
        ({"method": {"type": "sft"}}, "method.type", 400),
        ({"method": []}, "method", 400),
        ({"metadata": {"k": 1}}, "metadata", 400),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata", 400),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations", 400),
        ({"lora": {"rank": 0}}, "lora.rank", 400),
        ({"lora": {"rank": 513}}, "lora.rank", 400),  # above what vLLM serves
        ({"lora": {"alpha": "32"}}, "lora.alpha", 400),
        ({"lora": {"quantization": "8bit"}}, "lora.quantization", 400),
        ({"lora": {"early_stopping_epochs": 1}}, "lora.early_stopping_epochs", 400),
        ({"epochs": 3}, "epochs", 400),
        ({"k" * 100_000: 3}, "k" * 60, 400),
    ],
)
def test_a_wrong_job_is_refused_by_field_and_leaves_no_row(
    gateway: TestClient, file_id: str, change: dict[str, Any], param: str, status: int
) -> None:
    answer = gateway.post(JOBS, json={"training_file": file_id, "model": BASE, **change})
    assert len(refused(answer, param, status)["message"]) < 500
    assert gateway.get(JOBS).json()["data"] == []


def test_a_rank_that_the_running_engine_does_not_serve_is_told_at_once(client: openai.OpenAI, file_id: str) -> None:
    told = []
    for rank in (16, 64):
        job = client.fine_tuning.jobs.create(training_file=file_id, model=BASE, extra_body={"lora": {"rank": rank}})
        warnings = [event for event in client.fine_tuning.jobs.list_events(job.id) if event.level == "warn"]
        told.append([event.message for event in warnings])
    assert told[0] == []
    assert "engine.max_lora_rank = 64" in told[1][0]


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'{"model": "a", "model": "b"}', b"\xff", b'{"seed": NaN}'])
def test_what_is_no_json_object_is_refused(gateway: TestClient, data: bytes) -> None:
    answer = gateway.post(JOBS, content=data)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert gateway.get(JOBS).json()["data"] == []


def test_the_client_tells_a_wrong_job_by_its_field(client: openai.OpenAI, file_id: str) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        client.fine_tuning.jobs.create(training_file=file_id, model=BASE, suffix="../../x")
    assert wrong.value.param == "suffix"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.fine_tuning.jobs.create(training_file=file_id, model="llama-99")
    assert (unknown.value.param, unknown.value.code) == ("model", "model_not_found")


def test_a_file_of_another_purpose_is_refused(gateway: TestClient, client: openai.OpenAI) -> None:
    other = client.files.create(file=("a.jsonl", chat_lines()), purpose="batch").id
    error = refused(gateway.post(JOBS, json={"training_file": other, "model": BASE}), "training_file")
    assert "'batch'; expected 'fine-tune'" in error["message"]


def test_files_are_checked_again_for_the_job_that_names_them(
    gateway: TestClient, client: openai.OpenAI, settings: Settings, state: State, admin: Caller, file_id: str
) -> None:
    few = client.files.create(file=("few.jsonl", chat_lines(9)), purpose="fine-tune").id
    error = refused(gateway.post(JOBS, json={"training_file": few, "model": BASE}), "training_file")
    assert "few.jsonl" in error["message"]
    assert "9 examples; at least 10" in error["message"]
    bad = FileStore(settings, state).add(
        [b"{}\n"], filename="bad.jsonl", purpose=FINE_TUNE, project_id=admin.project_id
    )
    body = {"training_file": file_id, "validation_file": bad.id, "model": BASE}
    assert refused(gateway.post(JOBS, json=body), "validation_file")["code"] == "invalid_training_file"
    assert gateway.get(JOBS).json()["data"] == []
    assert gateway.post(JOBS, json={**body, "validation_file": few}).status_code == 200


def test_a_file_for_the_other_method_is_refused(gateway: TestClient, file_id: str, preferences: str) -> None:
    for file, kind in ((preferences, "supervised"), (file_id, "dpo")):
        body = {"training_file": file, "model": BASE, "method": {"type": kind}}
        refused(gateway.post(JOBS, json=body), "training_file")
    assert gateway.get(JOBS).json()["data"] == []


@pytest.mark.parametrize("path", ["ftjob-none", "..", "%2e%2e%2fx", "a%00b", "%ff"])
def test_ids_that_are_none_lead_nowhere(gateway: TestClient, path: str) -> None:
    for method, end in (("GET", ""), ("GET", "/events"), ("GET", "/checkpoints"), ("POST", "/cancel")):
        answer = gateway.request(method, f"{JOBS}/{path}{end}")
        assert answer.status_code in (404, 405), (path, answer.text)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("steps", "last", "status"),
    [
        (["cancel"], "cancel", "cancelled"),
        (["cancel"], "pause", "cancelled"),
        (["cancel"], "resume", "cancelled"),
        (["pause"], "pause", "paused"),
        ([], "resume", "queued"),
    ],
)
def test_a_change_at_the_wrong_time_gets_409_once(
    gateway: TestClient, file_id: str, steps: list[str], last: str, status: str
) -> None:
    """The client would send a 409 again twice."""
    seen: list[httpx.Request] = []
    gateway.event_hooks["request"].append(seen.append)
    client = openai.OpenAI(api_key="none", base_url="http://127.0.0.1:8000/v1", http_client=gateway)
    job = client.fine_tuning.jobs.create(training_file=file_id, model=BASE)
    for step in steps:
        getattr(client.fine_tuning.jobs, step)(job.id)
    seen.clear()
    with pytest.raises(openai.ConflictError, match=f"is {status}") as caught:
        getattr(client.fine_tuning.jobs, last)(job.id)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(seen) == 1
    assert client.fine_tuning.jobs.retrieve(job.id).status == status


def test_what_another_process_holds_may_be_tried_again() -> None:
    assert "x-should-retry" not in respond(LockedError("the model store is held by process 7")).headers


# Requests sent again


def test_a_key_sent_again_gives_the_same_job(gateway: TestClient, client: openai.OpenAI, file_id: str) -> None:
    def create(key: str, **options: Any) -> str:
        headers = {"Idempotency-Key": key}
        return client.fine_tuning.jobs.create(
            training_file=file_id, model=BASE, extra_headers=headers, **options
        ).id

    first = create("k" * 255)
    client.files.delete(file_id)
    assert create("k" * 255) == first
    with pytest.raises(openai.BadRequestError) as caught:
        create("k" * 255, suffix="another")
    assert caught.value.code == "idempotency_key_reused"
    assert len(client.fine_tuning.jobs.list().data) == 1
    for key in ("", "k" * 256):
        body = {"training_file": file_id, "model": BASE}
        refused(gateway.post(JOBS, json=body, headers={"idempotency-key": key}), "Idempotency-Key")


def test_the_order_of_the_bodys_keys_makes_no_other_request(gateway: TestClient, file_id: str) -> None:
    body = {"training_file": file_id, "model": BASE, "seed": 1}
    turned = dict(reversed(body.items()))
    headers = {"idempotency-key": "k"}
    made = {gateway.post(JOBS, json=sent, headers=headers).json()["id"] for sent in (body, turned)}
    assert len(made) == 1


def test_a_job_without_a_mark_is_always_a_new_one(client: openai.OpenAI, file_id: str) -> None:
    assert len({client.fine_tuning.jobs.create(training_file=file_id, model=BASE).id for _ in range(3)}) == 3


class LosesAnswers(httpx.BaseTransport):
    """A network on which the first `count` answers to a POST never arrive."""

    def __init__(self, gateway: TestClient, count: int):
        self._gateway = gateway
        self._left = count

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._gateway.request(
            request.method, str(request.url), content=request.read(), headers=dict(request.headers)
        )
        if request.method == "POST" and self._left:
            self._left -= 1
            raise httpx.ReadTimeout("the answer is lost", request=request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def test_a_retry_of_the_client_makes_no_second_job(gateway: TestClient, file_id: str) -> None:
    http_client = httpx.Client(transport=LosesAnswers(gateway, 2))
    client = openai.OpenAI(api_key="none", base_url="http://127.0.0.1:8000/v1", http_client=http_client)
    made = client.fine_tuning.jobs.create(training_file=file_id, model=BASE, suffix="once")
    assert [job.id for job in client.fine_tuning.jobs.list()] == [made.id]


def test_of_retries_at_once_none_makes_a_second_job(gateway: TestClient, state: State, file_id: str) -> None:
    """As when a connection is lost while the files are still being checked."""
    body = {"training_file": file_id, "model": BASE}
    start = threading.Barrier(8)

    def post(number: int) -> str:
        start.wait()
        headers = {"x-stainless-retry-count": str(number + 1)}
        return gateway.post(JOBS, json=body, headers=headers).json()["id"]

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(post, range(8)))) == 1
    with state.reading() as session:
        assert session.query(Job).count() == 1


def test_a_retry_waits_for_a_first_request_that_is_still_at_work(
    gateway: TestClient, client: openai.OpenAI
) -> None:
    """The client gave up on its connection while a large file was being checked."""
    large = client.files.create(file=("large.jsonl", chat_lines(30_000)), purpose="fine-tune").id
    body = {"training_file": large, "model": BASE}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(gateway.post, JOBS, json=body)
        time.sleep(0.2)
        again = pool.submit(gateway.post, JOBS, json=body, headers={"x-stainless-retry-count": "1"})
    assert again.result().json()["id"] == first.result().json()["id"]


def test_of_requests_at_once_with_one_key_one_makes_a_job(gateway: TestClient, file_id: str) -> None:
    start = threading.Barrier(8)

    def post(number: int) -> tuple[int, str]:
        start.wait()
        body = {"training_file": file_id, "model": BASE, "seed": number % 2}
        answer = gateway.post(JOBS, json=body, headers={"idempotency-key": "k"})
        return answer.status_code, answer.json().get("id", "") or answer.json()["error"]["code"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert len(set(answers)) == 2
    assert {status for status, _ in answers} == {200, 400}
    assert (400, "idempotency_key_reused") in answers
    assert len(gateway.get(JOBS).json()["data"]) == 1
