"""Batches through the openai client: checked as a whole, answered line by line, each line once."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch
from sqlalchemy import select
from starlette.testclient import TestClient

from local_llm.keys import KeyStore
from local_llm.permissions import Caller
from local_llm.projects import ProjectStore
from local_llm.settings import Settings
from local_llm.state import BatchRow, File, State
from serving.batches.asking import MOST_TRIES

from .conftest import BASE
from .recording_engine import running
from .telling_engine import TellingEngine
from .vector_store_world import index_server, running_gateway

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
DEADLINE_SECONDS = 60
PAGE = Path(__file__).parents[2] / "docs" / "batches.md"


@pytest.fixture
def engine(settings: Settings) -> Iterator[TellingEngine]:
    small = TellingEngine()
    with running(small, settings.place.ensure().socket("engine")):  # type: ignore[arg-type]
        yield small


def line(custom_id: str, text: str, url: str = CHAT, **changes: Any) -> dict[str, Any]:
    body = {"model": BASE, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body, **changes}


def upload(client: openai.OpenAI, lines: list[Any]) -> str:
    data = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines)
    return client.files.create(file=("in.jsonl", data.encode()), purpose="batch").id


def create(client: openai.OpenAI, lines: list[Any], endpoint: Any = CHAT, **rest: Any) -> Batch:
    return client.batches.create(
        input_file_id=upload(client, lines), endpoint=endpoint, completion_window="24h", **rest
    )


def wait(client: openai.OpenAI, batch: Batch, done: Callable[[Batch], bool] | None = None) -> Batch:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (done(batch) if done else batch.status in ENDED):
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def read(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def test_every_line_is_answered_in_the_order_of_the_input(client: openai.OpenAI, engine: TellingEngine) -> None:
    made = create(client, [line(f"r{n}", f"question {n}") for n in range(30)], metadata={"run": "7"})
    assert (made.status, made.object, made.metadata) == ("validating", "batch", {"run": "7"})
    batch = wait(client, made)
    assert batch.status == "completed", batch
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"completed": 30, "failed": 0, "total": 30}
    assert batch.usage is not None
    assert (batch.usage.input_tokens, batch.usage.output_tokens, batch.model) == (210, 90, BASE)
    assert (batch.errors, batch.error_file_id) == (None, None)
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at  # type: ignore[operator]

    lines = read(client, batch.output_file_id)
    assert [one["custom_id"] for one in lines] == [f"r{n}" for n in range(30)]
    assert len({one["id"] for one in lines}) == 30
    assert lines[3]["error"] is None
    assert lines[3]["response"]["status_code"] == 200
    body = lines[3]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == "Aye, question 3"
    assert body["id"] == f"chatcmpl-{lines[3]['response']['request_id']}"
    # At low priority, in the salted cache of the project, like any other question.
    assert {asked["priority"] for asked in engine.asked} == {1}
    assert len({asked["cache_salt"] for asked in engine.asked}) == 1
    file = client.files.retrieve(batch.output_file_id or "")
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")


def test_a_batch_whose_answers_fit_no_more_fails_and_keeps_them(tmp_path: Path) -> None:
    """Answers were written whatever the quota, which then refused everybody else's uploads."""
    # One at a time, so that it is seen before all are answered.
    with running_gateway(tmp_path / "full", **{"server.max_running_requests": 2}) as world:
        engine, projects, project_id = TellingEngine(), ProjectStore(world.state), world.state.local_project_id()
        engine.pause_seconds = 0.3
        with running(engine, world.settings.place.socket("engine")):  # type: ignore[arg-type]
            client, lines = world.client(), [line(f"r{n}", f"question {n}") for n in range(40)]
            file_id = upload(client, lines)
            projects.update(project_id, file_quota_bytes=client.files.retrieve(file_id).bytes + 600)
            asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
            batch = wait(client, client.batches.create(**asked))  # type: ignore[arg-type]
            assert batch.status == "failed"
            assert batch.errors is not None
            assert batch.errors.data is not None
            assert batch.errors.data[0].code == "quota_exceeded"
            assert "server.project_quota_bytes" in (batch.errors.data[0].message or "")
            answered, rest = read(client, batch.output_file_id), read(client, batch.error_file_id)
            assert 1 < len(answered) < 40
            assert [one["custom_id"] for one in answered + rest] == [f"r{n}" for n in range(40)]
            assert {one["error"]["code"] for one in rest} == {"quota_exceeded"}

            before = len(engine.asked)
            again = wait(client, client.batches.create(**asked))  # type: ignore[arg-type]
            assert again.status == "failed"
            assert again.errors is not None
            assert again.errors.data is not None
            assert again.errors.data[0].code == "quota_exceeded"
            assert (len(engine.asked), again.output_file_id) == (before, None)
            projects.update(project_id, file_quota_bytes=None)
            assert wait(client, create(client, lines[:2])).status == "completed"


def test_completions_have_their_own_endpoint(client: openai.OpenAI, engine: TellingEngine) -> None:
    url = "/v1/completions"
    batch = wait(client, create(client, [line("a", "", url, body={"model": "base", "prompt": "Once"})], url))
    assert read(client, batch.output_file_id)[0]["response"]["body"]["choices"][0]["text"] == "Aye, Once"


def test_responses_have_their_own_endpoint_too(client: openai.OpenAI, engine: TellingEngine) -> None:
    url = "/v1/responses"
    lines: list[Any] = [
        line("a", "", url, body={"model": BASE, "input": "Well?"}),
        line("b", "", url, body={"model": BASE, "input": 3}),
    ]
    batch = wait(client, create(client, lines, url))
    body = read(client, batch.output_file_id)[0]["response"]["body"]
    assert (body["object"], body["output"][0]["content"][0]["text"]) == ("response", "Aye, Well?")
    assert read(client, batch.error_file_id)[0]["response"]["status_code"] == 400
    assert {asked["priority"] for asked in engine.asked} == {1}
    assert batch.usage is not None
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (7, 3)


def test_what_the_engine_refuses_is_in_the_error_file(client: openai.OpenAI, engine: TellingEngine) -> None:
    engine.fail = {"bad": [400], "odd": [501] * MOST_TRIES}
    lines = [line("a", "bad"), line("b", "good"), line("c", "odd")]
    lines.append(line("d", "", body={"model": BASE, "messages": []}))
    batch = wait(client, create(client, lines))
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"completed": 1, "failed": 3, "total": 4}
    assert [one["custom_id"] for one in read(client, batch.output_file_id)] == ["b"]
    errors = read(client, batch.error_file_id)
    assert [(one["custom_id"], one["response"]["status_code"]) for one in errors] == [
        ("a", 400),
        ("c", 501),
        ("d", 400),
    ]
    assert errors[0]["response"]["body"]["error"]["message"] == "no bad"
    assert errors[2]["response"]["body"]["error"]["param"] == "messages"


def test_what_is_busy_is_asked_again(client: openai.OpenAI, engine: TellingEngine) -> None:
    engine.fail = {"later": [429, 503]}
    batch = wait(client, create(client, [line("a", "later")]))
    assert [one["custom_id"] for one in read(client, batch.output_file_id)] == ["a"]
    assert engine.counts() == {"later": 3}


def test_a_batch_waits_for_an_engine_that_is_down(client: openai.OpenAI, settings: Settings) -> None:
    made = create(client, [line("a", "hello")])
    time.sleep(1)
    assert client.batches.retrieve(made.id).status == "in_progress"
    with running(TellingEngine(), settings.place.socket("engine")):  # type: ignore[arg-type]
        assert wait(client, made).status == "completed"


def test_all_problems_of_an_input_are_told_by_line(client: openai.OpenAI, engine: TellingEngine) -> None:
    good = line("a", "hello")
    lines: list[Any] = [
        good,
        "{not json",
        line("a", "the same id"),
        "",
        line("b", "x", method="GET"),
        line("c", "x", url="/v1/embeddings"),
        line("d", "x", body="text"),
        line("e", "x", body={"messages": []}),
        line("f", "x", body={**good["body"], "model": "gpt-nine"}),
        line("g", "x", body={**good["body"], "stream": True}),
        line("h", "x", colour="red"),
        line("", "x"),
        '{"custom_id": "i", "custom_id": "i"}',
        "[1]",
    ]
    batch = wait(client, create(client, lines))
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [(one.line, one.code, one.param) for one in batch.errors.data or ()] == [
        (2, "invalid_json_line", None),
        (3, "duplicate_custom_id", "custom_id"),
        (5, "invalid_method", "method"),
        (6, "invalid_url", "url"),
        (7, "invalid_body", "body"),
        (8, "missing_required_parameter", "body.model"),
        (9, "model_not_found", "body.model"),
        (10, "invalid_body", "body.stream"),
        (11, "unknown_parameter", "colour"),
        (12, "invalid_custom_id", "custom_id"),
        (13, "invalid_json_line", None),
        (14, "invalid_json_line", None),
    ]
    assert engine.asked == []
    assert (batch.output_file_id, batch.error_file_id) == (None, None)


def test_a_hundred_problems_are_enough(client: openai.OpenAI) -> None:
    batch = wait(client, create(client, ["{"] * 250))
    assert batch.errors is not None
    assert len(batch.errors.data or ()) == 100


def test_too_many_requests_and_none_are_refused(client: openai.OpenAI) -> None:
    text = json.dumps(line("ID", "x"))
    too_many = wait(client, create(client, [text.replace("ID", str(n)) for n in range(50_001)]))
    empty = wait(client, create(client, ["", ""]))
    for batch, code in ((too_many, "too_many_requests"), (empty, "empty_file")):
        assert batch.status == "failed"
        assert batch.errors is not None
        assert [one.code for one in batch.errors.data or ()] == [code]


def test_what_is_told_of_a_problem_is_short(client: openai.OpenAI, state: State) -> None:
    """Names of 8 MB each stood in the database, and in every answer about the batch."""
    name = "x" * 1_000_000
    lines: list[Any] = [
        line("a", "x", body={"model": name, "messages": []}),
        line("b", "x", **{name: 1}),
        line("c", "x", method=name, url=name),
        line(name, "x"),
        line("d", "x", body={"model": "x" * 500, "messages": []}),
    ]
    batch = wait(client, create(client, lines))
    assert batch.errors is not None
    assert {one.line for one in batch.errors.data or ()} == {1, 2, 3, 4, 5}
    for one in batch.errors.data or ():
        assert len(one.message or "") <= 500
        assert "x" * 200 not in (one.message or "")
        assert len(one.param or "") <= 80
    assert len(batch.to_json()) < 5000


def test_requests_behind_very_many_blank_lines_are_not_dropped_in_silence(client: openai.OpenAI) -> None:
    lines: list[Any] = [line("a", "hello"), *[""] * 100_001, line("b", "hello")]
    batch = wait(client, create(client, lines))
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [(one.code, one.line) for one in batch.errors.data or ()] == [("too_many_blank_lines", 100_002)]


def test_a_cancelled_batch_gives_what_it_has(client: openai.OpenAI, engine: TellingEngine) -> None:
    made = create(client, [line("a", "quick")] + [line(f"r{n}", "slow") for n in range(200)])
    wait(client, made, lambda batch: batch.status == "in_progress")
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not engine.asked:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    engine.pause_seconds = 30
    assert client.batches.cancel(made.id).status == "cancelling"
    batch = wait(client, made)
    assert batch.status == "cancelled"
    time.sleep(0.1)
    assert engine.running == 0  # its slots are free
    assert batch.cancelled_at is not None
    assert batch.cancelling_at is not None
    assert batch.request_counts is not None
    assert batch.request_counts.completed + batch.request_counts.failed == 201
    if batch.error_file_id:
        errors = read(client, batch.error_file_id)
        assert {one["error"]["code"] for one in errors} == {"batch_cancelled"}
        assert {str(one["response"]) for one in errors} == {"None"}
    with pytest.raises(openai.ConflictError, match="nothing to cancel"):
        client.batches.cancel(made.id)


def test_a_batch_expires_after_its_window(client: openai.OpenAI, engine: TellingEngine, state: State) -> None:
    engine.pause_seconds = 30
    made = create(client, [line("a", "slow"), line("b", "slow")])
    wait(client, made, lambda batch: batch.status == "in_progress")
    with state.session() as session:
        session.get_one(BatchRow, made.id).expires_at = 1
    batch = wait(client, made)
    assert (batch.status, batch.output_file_id) == ("expired", None)
    assert [one["error"]["code"] for one in read(client, batch.error_file_id)] == ["batch_expired"] * 2


def test_a_deleted_input_ends_its_batch(client: openai.OpenAI, engine: TellingEngine) -> None:
    engine.pause_seconds = 30
    made = create(client, [line("a", "slow")])
    wait(client, made, lambda batch: batch.status == "in_progress")
    client.files.delete(made.input_file_id)
    batch = wait(client, made)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [one.code for one in batch.errors.data or ()] == ["input_file_deleted"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"metadata": {"k": 3}}, "metadata.k"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after"),
    ],
)
def test_a_wrong_request_is_told_by_field(client: openai.OpenAI, changes: dict[str, Any], param: str) -> None:
    body = {"input_file_id": upload(client, ["{}"]), "endpoint": CHAT, "completion_window": "24h", **changes}
    with pytest.raises(openai.BadRequestError) as told:
        client.post("/batches", body=body, cast_to=object)
    assert told.value.param == param


def test_a_file_of_another_purpose_is_no_input(client: openai.OpenAI) -> None:
    other = client.files.create(file=("a.jsonl", b"{}"), purpose="user_data").id
    with pytest.raises(openai.BadRequestError, match="expected 'batch'"):
        client.batches.create(input_file_id=other, endpoint=CHAT, completion_window="24h")


def test_batches_are_listed_by_pages_the_newest_first(client: openai.OpenAI) -> None:
    made = [create(client, ["{"]).id for _ in range(5)]
    assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]
    assert len(client.batches.list(limit=2).data) == 2
    with pytest.raises(openai.NotFoundError):
        client.batches.list(after="batch_none")


def test_another_projects_batches_are_not_there(
    gateway: TestClient, engine: TellingEngine, state: State, admin: Caller
) -> None:
    keys, other = KeyStore(state), ProjectStore(state).create("two").id
    mine = client_of(gateway, keys.create(admin.project_id, "mine", role="admin").secret)
    theirs = client_of(gateway, keys.create(other, "theirs", role="admin").secret)
    batch = wait(mine, create(mine, [line("a", "hello")]))
    assert theirs.batches.list().data == []
    for call in (theirs.batches.retrieve, theirs.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            call(batch.id)
    with pytest.raises(openai.NotFoundError):
        theirs.files.content(batch.output_file_id or "")
    with pytest.raises(openai.BadRequestError, match="does not exist"):
        theirs.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h")


def client_of(gateway: TestClient, secret: str) -> openai.OpenAI:
    return openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key=secret, http_client=gateway, max_retries=0)


def test_answers_are_read_by_nobody_who_might_see_less_than_their_maker(
    gateway: TestClient, engine: TellingEngine, state: State, admin: Caller
) -> None:
    keys, project = KeyStore(state), admin.project_id
    of = {
        name: client_of(gateway, keys.create(project, name, role=role, principals=principals).secret)  # type: ignore[arg-type]
        for name, role, principals in (
            ("admin", "admin", []),
            ("plain", "member", []),
            ("ana", "member", ["user:ana"]),
            ("ana's phone", "member", ["user:ana", "group:phones"]),
            ("other phone", "member", ["group:phones"]),
        )
    }
    readers = {}
    for maker, client in of.items():
        file_id = wait(client, create(client, [line("a", "hello")])).output_file_id or ""
        readers[maker] = {name for name, reader in of.items() if reads(reader, file_id)}
    assert readers == {
        "admin": {"admin"},
        "plain": set(of),
        "ana": {"admin", "ana", "ana's phone"},
        "ana's phone": {"admin", "ana's phone"},
        "other phone": {"admin", "ana's phone", "other phone"},
    }


def reads(client: openai.OpenAI, file_id: str) -> bool:
    listed = file_id in {file.id for file in client.files.list()}
    try:
        client.files.content(file_id)
    except openai.NotFoundError:
        assert not listed
        return False
    return listed


def test_a_revoked_key_ends_its_batches(
    gateway: TestClient, engine: TellingEngine, state: State, admin: Caller
) -> None:
    keys = KeyStore(state)
    key, overseer = keys.create(admin.project_id, "key"), keys.create(admin.project_id, "admin", role="admin")
    client = client_of(gateway, key.secret)
    engine.fail = {"later": [503] * 100}
    made = create(client, [line("a", "hello"), line("b", "later")])
    wait(client, made, lambda batch: batch.request_counts is not None and batch.request_counts.completed == 1)
    keys.revoke(admin.project_id, key.key.id)
    batch = wait(client_of(gateway, overseer.secret), made)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [one.code for one in batch.errors.data or ()] == ["key_revoked"]
    # What was answered until then is the admins' now.
    assert len(read(client_of(gateway, overseer.secret), batch.output_file_id)) == 1
    with state.reading() as session:
        allow = session.scalars(select(File.allow).where(File.id == batch.output_file_id)).one()
    assert allow == [f"key:{key.key.id}"]


def test_batches_leave_room_for_others(settings: Settings, client: openai.OpenAI, engine: TellingEngine) -> None:
    """They hold at most half of what the engine is asked at once, and more of a key's wait for their turn."""
    engine.pause_seconds = 0.3
    made = [create(client, [line(f"r{n}", f"q{n}") for n in range(200)]) for _ in range(2)]
    for one in made:
        assert wait(client, one).status == "completed"
    assert engine.most_running <= settings.server.max_running_requests // 2


def test_the_page_does_what_it_says_and_embeddings_go_to_the_index_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snippet = PAGE.read_text().split("```python\n")[1].split("```")[0]
    with running_gateway(tmp_path) as world:
        small = TellingEngine()
        with running(small, world.settings.place.socket("engine")):  # type: ignore[arg-type]
            client = world.client("ana")
            names: dict[str, Any] = {"OpenAI": lambda: client}
            monkeypatch.chdir(tmp_path)
            exec(snippet.replace("from openai import OpenAI", ""), names)
        assert names["batch"].status == "completed"
        url = "/v1/embeddings"
        lines: list[Any] = [
            line("a", "", url, body={"model": "all-MiniLM-L6-v2", "input": ["one", "two"]}),
            line("b", "", url, body={"model": "all-MiniLM-L6-v2", "input": "three", "dimensions": 7}),
        ]
        made = create(client, lines, url)
        with index_server(world):
            batch = wait(client, made)
        body = read(client, batch.output_file_id)[0]["response"]["body"]
        assert [len(one["embedding"]) for one in body["data"]] == [384, 384]
        assert read(client, batch.error_file_id)[0]["response"]["body"]["error"]["param"] == "dimensions"
        failed = wait(client, create(client, [line("a", "", url, body={"model": "none", "input": "x"})], url))
        assert failed.errors is not None
        assert [one.code for one in failed.errors.data or ()] == ["model_not_found"]
