"""Chats with `store`: kept where the project allows it, rated, and exported as a file that can be trained on."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient
from typer.testing import CliRunner

from local_llm.cli.app import app
from local_llm.keys import KeyStore
from local_llm.models import ModelStore
from local_llm.permissions import Caller
from local_llm.projects import ProjectStore
from local_llm.retention import Retention
from local_llm.settings import ServerSettings, Settings, load_settings
from local_llm.state import AuditEntry, ChatRow, Key, Project, State, UsageRow
from serving.answering.events import TokenUsage
from serving.chats.assembling import streamed_answer
from serving.chats.keeping import ChatKeeper
from serving.gateway import create_app
from tests.postgresql import environment_of
from training.examples.data import check_training_file, read_training_file

from ..handmade_adapters import write_base
from .conftest import BASE
from .recording_engine import running
from .telling_engine import TellingEngine
from .test_batches import client_of, create, wait
from .vector_store_world import index_server, running_gateway

BOTH_DATABASES = True

PAGE = Path(__file__).parents[2] / "docs" / "fine-tuning.md"
USER: list[Any] = [{"role": "user", "content": "Where are my invoices?"}]


@pytest.fixture(autouse=True)
def keeping(state: State, admin: Caller) -> None:
    ProjectStore(state).update(admin.project_id, store_chats=True)


@pytest.fixture
def engine(settings: Settings) -> Iterator[TellingEngine]:
    small = TellingEngine()
    with running(small, settings.place.ensure().socket("engine")):  # type: ignore[arg-type]
        yield small


@pytest.fixture
def client(gateway: TestClient, engine: TellingEngine) -> openai.OpenAI:
    return client_of(gateway, "none")


def ask(client: openai.OpenAI, question: str = "Where are my invoices?", **rest: Any) -> Any:
    return client.chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": question}], **{"store": True, **rest}
    )


def rate(client: openai.OpenAI, chat_id: str, rating: str, **rest: Any) -> Any:
    return client.post(f"/chat/completions/{chat_id}/rating", body={"rating": rating, **rest}, cast_to=object)


def exported(gateway: TestClient, secret: str = "none", **query: Any) -> list[dict[str, Any]]:
    answer = gateway.get("/v1/chat/completions/export", params=query, headers={"authorization": f"Bearer {secret}"})
    assert answer.status_code == 200, answer.text
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert int(answer.headers["x-examples"]) == len(lines)
    return lines


def test_a_stored_chat_is_retrieved_listed_updated_and_deleted(
    client: openai.OpenAI, engine: TellingEngine
) -> None:
    made = ask(client, metadata={"ticket": "7"}, temperature=0)
    for sent in ("store", "metadata"):
        assert sent not in engine.asked[-1]  # kept here, no concern of the engine's
    chats = client.chat.completions
    found = chats.retrieve(made.id)
    assert found.choices[0].message.content == "Aye, Where are my invoices?"
    assert found.to_dict()["metadata"] == {"ticket": "7"}
    assert found.usage == made.usage
    other = ask(client, "Other?", metadata={"ticket": "8"})
    assert [one.id for one in chats.list()] == [made.id, other.id]
    assert [one.id for one in chats.list(order="desc", limit=1)] == [other.id, made.id]
    assert [one.id for one in chats.list(metadata={"ticket": "8"})] == [other.id]
    assert [one.id for one in chats.list(model=BASE)] == [made.id, other.id]
    assert list(chats.list(model="another")) == []
    assert chats.update(made.id, metadata={"ticket": "9"}).to_dict()["metadata"] == {"ticket": "9"}
    assert [one.id for one in chats.list(metadata={"ticket": "9"})] == [made.id]
    deleted = chats.delete(made.id)
    assert (deleted.deleted, deleted.object) == (True, "chat.completion.deleted")
    for call in (chats.retrieve, chats.delete):
        with pytest.raises(openai.NotFoundError):
            call(made.id)


def test_the_messages_of_a_chat_are_those_that_the_client_sent(client: openai.OpenAI) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Well?"},
    ]
    made = client.chat.completions.create(model=BASE, messages=messages, store=True)
    of = client.chat.completions.messages
    listed = list(of.list(made.id, limit=3))
    assert [one.id for one in listed] == [f"{made.id}-{number}" for number in range(4)]
    assert [one.content for one in listed] == ["Be brief.", None, "Hi.", "Well?"]
    assert listed[1].to_dict()["content_parts"] == [{"type": "text", "text": "Hello"}]
    assert [one.content for one in of.list(made.id, order="desc", limit=1).data] == ["Well?"]
    with pytest.raises(openai.BadRequestError, match="has no message"):
        of.list(made.id, after="chatcmpl-none-0")


def test_a_streamed_chat_is_kept_as_one_that_was_not(client: openai.OpenAI) -> None:
    pieces = list(ask(client, stream=True))
    found = client.chat.completions.retrieve(pieces[0].id)
    assert found.choices[0].message.content == "Aye, Where are my invoices?"
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (7, 3)
    assert all(piece.usage is None for piece in pieces)  # it was not asked for


def test_calls_of_tools_are_put_together_from_a_stream() -> None:
    deltas: list[Any] = [
        {
            "role": "assistant",
            "tool_calls": [{"index": 0, "id": "c1", "function": {"name": "look", "arguments": ""}}],
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
        {"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "see", "arguments": "{}"}}]},
    ]
    events = [
        {"id": "x", "model": "m", "created": 1, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    sent = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    assert streamed_answer(sent, TokenUsage()) is None  # it did not come to its end
    events[-1]["choices"][0]["finish_reason"] = "tool_calls"
    sent[-1] = b"data: " + json.dumps(events[-1]).encode() + b"\n\n"
    answer = streamed_answer(sent, TokenUsage())
    assert answer is not None
    assert answer["choices"][0]["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}},
        {"id": "c2", "type": "function", "function": {"name": "see", "arguments": "{}"}},
    ]
    assert streamed_answer([*sent, b'data: {"error": {"message": "it ended"}}\n\n'], TokenUsage()) is None


def test_nothing_is_kept_unless_both_the_client_and_the_project_say_so(
    tmp_path: Path, client: openai.OpenAI, state: State
) -> None:
    for rest in ({"store": False}, {"store": None}, {"metadata": {"a": "b"}, "store": openai.omit}):
        assert ask(client, **rest).choices[0].message.content
    client.chat.completions.list()  # has all written that waits
    with state.reading() as session:
        assert session.scalar(select(func.count()).select_from(ChatRow)) == 0
    silent = load_settings(environment={"LOCAL_LLM_HOME": str(tmp_path / "silent")})
    ModelStore(silent.place.ensure().models).import_folder(write_base(tmp_path / "other"), name=BASE)
    with (
        running(TellingEngine(), silent.place.socket("engine")),  # type: ignore[arg-type]
        TestClient(create_app(silent), "http://127.0.0.1:8000") as other,
    ):
        made = ask(client_of(other, "none"))
        with pytest.raises(openai.NotFoundError, match="where the project keeps chats"):
            client_of(other, "none").chat.completions.retrieve(made.id)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"store": "yes"}, "store"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"metadata": ["k"]}, "metadata"),
    ],
)
def test_a_wrong_request_is_told_by_field(client: openai.OpenAI, changes: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as told:
        ask(client, **changes)
    assert told.value.param == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rating": "fine"}, "rating"),
        ({}, "rating"),
        ({"rating": "bad", "correction": "  "}, "correction"),
        ({"rating": "bad", "colour": "red"}, "colour"),
    ],
)
def test_a_wrong_rating_is_told_by_field(client: openai.OpenAI, body: dict[str, Any], param: str) -> None:
    made = ask(client)
    with pytest.raises(openai.BadRequestError) as told:
        client.post(f"/chat/completions/{made.id}/rating", body=body, cast_to=object)
    assert told.value.param == param


def test_a_chat_is_seen_by_the_key_that_made_it_and_admins_only(
    gateway: TestClient, engine: TellingEngine, state: State, admin: Caller
) -> None:
    keys = KeyStore(state)
    secrets = {
        name: keys.create(admin.project_id, name, role=role).secret  # type: ignore[arg-type]
        for name, role in (("ana", "member"), ("bob", "member"), ("admin", "admin"))
    }
    ana, bob, overseer = (client_of(gateway, secrets[name]) for name in ("ana", "bob", "admin"))
    made = ask(ana)
    rate(ana, made.id, "good")
    assert [one.id for one in overseer.chat.completions.list()] == [made.id]
    assert list(bob.chat.completions.list()) == []
    for call in (
        lambda: bob.chat.completions.retrieve(made.id),
        lambda: bob.chat.completions.update(made.id, metadata={}),
        lambda: bob.chat.completions.delete(made.id),
        lambda: bob.chat.completions.messages.list(made.id),
        lambda: rate(bob, made.id, "bad"),
    ):
        with pytest.raises(openai.NotFoundError):
            call()
    sizes = {name: len(exported(gateway, secret)) for name, secret in secrets.items()}
    assert sizes == {"ana": 1, "bob": 0, "admin": 1}


def test_only_reviewed_answers_are_exported_and_a_correction_takes_their_place(
    client: openai.OpenAI, gateway: TestClient, tmp_path: Path
) -> None:
    good, bad, corrected, _unrated = (ask(client, f"Question {n}?") for n in range(4))
    rate(client, good.id, "good", reviewer_note="as we say it")
    rate(client, bad.id, "bad")
    told = rate(client, corrected.id, "bad", correction="Under Billing.")
    assert (told["rating"], told["correction"]) == ("bad", "Under Billing.")
    first = {"messages": [said("user", "Question 0?"), said("assistant", "Aye, Question 0?")]}
    second = {"messages": [said("user", "Question 2?"), said("assistant", "Under Billing.")]}
    assert exported(gateway) == [first, second]
    assert exported(gateway, rated="good") == [first]
    assert exported(gateway, rated="corrected") == [second]
    assert exported(gateway, model="another") == []
    assert gateway.get("/v1/chat/completions/export", params={"rated": "fine"}).status_code == 400
    rate(client, good.id, "bad")  # the last review holds
    assert exported(gateway) == [second]


def said(role: str, content: str, **rest: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **rest}


def test_what_cannot_be_trained_on_is_left_out_and_told(
    client: openai.OpenAI, gateway: TestClient, engine: TellingEngine
) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    seen: list[Any] = [said("user", "What is this?"), {"role": "user", "content": [image]}]
    seen.append(said("user", "Well?"))
    rate(client, client.chat.completions.create(model=BASE, messages=seen, store=True).id, "good")
    answer = gateway.get("/v1/chat/completions/export")
    assert (answer.text, answer.headers["x-left-out"]) == ("", "1")


def test_earlier_answers_are_context_not_examples_and_tools_are_kept(
    client: openai.OpenAI, gateway: TestClient, tmp_path: Path
) -> None:
    tools: list[Any] = [
        {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": None}}
    ]
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages: list[Any] = [
        said("user", "Look."),
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "content": "3 invoices"},
        said("user", "How many?"),
    ]
    made = client.chat.completions.create(model=BASE, messages=messages, tools=tools, store=True)
    rate(client, made.id, "good")
    path = tmp_path / "out.jsonl"
    path.write_bytes(gateway.get("/v1/chat/completions/export").content)
    (example,) = read_training_file(path, minimum=1).examples
    assert [(one.role, one.trained) for one in example.messages] == [
        ("user", False), ("assistant", False), ("tool", False), ("user", False), ("assistant", True),
    ]  # fmt: skip
    assert [tool["function"]["name"] for tool in example.tools] == ["look"]


def test_a_project_keeps_no_more_chats_than_it_may_and_says_so(tmp_path: Path) -> None:
    """Nothing bounded them: they filled the state database."""
    with running_gateway(tmp_path / "full", **{"server.project_chat_bytes": 4000}) as world:
        projects, keys = ProjectStore(world.state), KeyStore(world.state)
        projects.update(world.admin.project_id, store_chats=True)
        other = projects.create("other", store_chats=True)
        secret = keys.create(other.id, "app").secret
        with running(TellingEngine(), world.settings.place.socket("engine")):  # type: ignore[arg-type]
            client, told = world.client(), []
            for number in range(8):
                raw = client.chat.completions.with_raw_response.create(
                    model=BASE, messages=[said("user", f"Question {number}? {'very ' * 100}")], store=True
                )
                assert raw.parse().choices[0].message.content  # answered all the same
                told.append(raw.headers.get("x-chat-not-kept"))
                kept = client.chat.completions.list(limit=100).data
            assert told[0] is None
            assert told[-1] == "quota"
            assert 1 <= len(kept) < told.index("quota")  # the first that was too many is told in the log
            assert sum(row.size for row in rows(world.state)) <= 4000
            assert ask(client_of(world.gateway, secret)).id  # another project has room
            assert len(client_of(world.gateway, secret).chat.completions.list().data) == 1


def rows(state: State) -> list[ChatRow]:
    with state.reading() as session:
        return list(session.scalars(select(ChatRow)))


def test_a_chat_goes_when_its_time_is_over_and_a_rated_one_later(client: openai.OpenAI, state: State) -> None:
    old, rated, new = (ask(client, f"Question {number}?").id for number in range(3))
    assert len(client.chat.completions.list().data) == 3
    rate(client, rated, "good")
    with state.session() as session:
        session.execute(update(ChatRow).where(ChatRow.id != new).values(created_at=5))
    for_ever = Retention(state, ServerSettings(chat_days=0))  # type: ignore[call-arg]
    for_ever.sweep()
    assert (len(rows(state)), for_ever.overdue()["chats"]) == (3, 0)
    ours = Retention(state, ServerSettings())  # type: ignore[call-arg]
    assert ours.overdue()["chats"] == 1
    ours.sweep()
    assert {row.id for row in rows(state)} == {rated, new}
    assert old not in {row.id for row in rows(state)}


def test_context_is_exported_as_the_model_saw_it_or_left_out(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "other") as world:
        ProjectStore(world.state).update(world.admin.project_id, store_chats=True)
        engine, client, secret = TellingEngine(), world.client(), world.secrets["admin"]
        with (
            running(engine, world.settings.place.socket("engine")),  # type: ignore[arg-type]
            index_server(world),
        ):
            store = client.vector_stores.create(name="handbook")
            client.vector_stores.files.upload_and_poll(
                vector_store_id=store.id,
                file=("battery.md", b"# Battery\n\nThe scanner charges in four hours from any wall socket.\n"),
                poll_interval_ms=50,
            )
            profile = {"name": "help", "strategy": "rag", "collection": "handbook"}
            client.post("/profiles", body=profile, cast_to=object)
            for stream in (False, True):
                messages: Any = [said("user", "How long does charging take?")]
                made: Any = client.chat.completions.create(
                    model="help", messages=messages, store=True, stream=stream
                )
                rate(client, list(made)[-1].id if stream else made.id, "good")
            seen = engine.asked[-1]["messages"][-1]["content"]
            assert "four hours" in seen
            for kept in client.chat.completions.list(model="help"):
                message = kept.to_dict()["choices"][0]["message"]  # type: ignore[index]
                assert message["citations"]
                assert message["content"].count("[1]") > seen.count("[1]")
            # The markers are ours: the model wrote none, and is not to learn them.
            answer = said("assistant", f"Aye, {seen}")
            assert (
                exported(world.gateway, secret)
                == [{"messages": [said("user", messages[0]["content"]), answer]}] * 2
            )
            assert (
                exported(world.gateway, secret, with_context=True)
                == [{"messages": [said("user", seen), answer]}] * 2
            )


def test_the_command_writes_a_file_that_passes_our_own_check(
    client: openai.OpenAI, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    out, run = tmp_path / "reviewed.jsonl", CliRunner().invoke
    line = ["train", "dataset", "chats", "--rated", "good", "--out", str(out)]
    empty = run(app, line)
    assert empty.exit_code == 1
    assert "no chat can be exported" in str(empty.exception)
    assert not out.exists()
    for number in range(10):
        rate(client, ask(client, f"Question {number}?").id, "good")
    done = run(app, [*line, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["examples"] == 10
    assert check_training_file(out).examples == 10
    assert "exists already" in str(run(app, line).exception)
    assert run(app, [*line, "--force"]).exit_code == 0
    with out.open("rb") as file:
        assert client.files.create(file=file, purpose="fine-tune").purpose == "fine-tune"


def test_chats_are_read_rated_and_deleted_by_command(
    client: openai.OpenAI, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)

    def run(*line: str) -> Any:
        done = CliRunner().invoke(app, ["chats", *line, "--json"])
        assert done.exit_code == 0, done.output + str(done.exception)
        return json.loads(done.stdout)

    made = [ask(client, f"Question {number}?") for number in range(3)]
    client.chat.completions.list()  # they are written
    assert [one["id"] for one in run("list", "--limit", "2")] == [made[2].id, made[1].id]
    assert [one["id"] for one in run("list", "--after", made[1].id)] == [made[0].id]
    (tmp_path / "better.txt").write_text("Aye, indeed.\n")
    run("rate", made[0].id, "bad", "--correction-file", str(tmp_path / "better.txt"), "--note", "too short")
    shown = run("show", made[0].id)
    assert (shown["rating"], shown["correction"], shown["reviewer_note"]) == ("bad", "Aye, indeed.", "too short")
    assert shown["messages"][-1]["content"] == "Question 0?"
    assert client.chat.completions.retrieve(made[0].id).to_dict()["rating"] == "bad"
    run("delete", made[0].id)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(made[0].id)
    wrong = CliRunner().invoke(app, ["chats", "rate", made[1].id, "good", "--correction", " "])
    assert "correction is empty" in str(wrong.exception)


def test_chats_are_written_within_a_second_and_when_the_gateway_stops(
    settings: Settings, state: State, engine: TellingEngine, gateway: TestClient
) -> None:
    ask(client_of(gateway, "none"))
    deadline = time.monotonic() + 10  # of a busy machine
    while chat_count(state) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with TestClient(create_app(settings), "http://127.0.0.1:8000") as other:
        ask(client_of(other, "none"))
    assert chat_count(state) == 2


def test_chats_that_cannot_be_written_wait(client: openai.OpenAI, gateway: TestClient, state: State) -> None:
    """Whoever is asked goes on meanwhile."""
    with state.session() as session:
        session.execute(text("ALTER TABLE chats RENAME TO away"))
    made = ask(client)
    assert gateway.get("/v1/chat/completions").status_code == 500  # the table is not there
    with state.session() as session:
        session.execute(text("ALTER TABLE away RENAME TO chats"))
    assert client.chat.completions.retrieve(made.id).id == made.id


def test_chats_of_a_project_that_is_removed_hold_up_no_others(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "going") as world:
        projects, keys = ProjectStore(world.state), KeyStore(world.state)
        going = projects.create("going", store_chats=True)
        projects.update(world.admin.project_id, store_chats=True)
        secret = keys.create(going.id, "app").secret
        with running(TellingEngine(), world.settings.place.socket("engine")):  # type: ignore[arg-type]
            with world.state.session() as session:  # nothing is written meanwhile
                ask(client_of(world.gateway, secret))
                session.execute(delete(Key).where(Key.project_id == going.id))
                session.execute(delete(AuditEntry).where(AuditEntry.project_id == going.id))
                session.execute(delete(UsageRow).where(UsageRow.project_id == going.id))
                session.execute(delete(Project).where(Project.id == going.id))
            made = ask(world.client())
            assert world.client().chat.completions.retrieve(made.id).id == made.id
            assert chat_count(world.state) == 1


def chat_count(state: State) -> int:
    with state.reading() as session:
        return session.scalar(select(func.count()).select_from(ChatRow)) or 0


def test_the_page_does_what_it_says(client: openai.OpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = PAGE.read_text().split("## From answers to examples")[1]
    snippet = section.split("```python\n")[1].split("```")[0].replace("from openai import OpenAI", "")
    monkeypatch.chdir(tmp_path)
    exec(snippet, {"OpenAI": lambda: client})
    assert check_training_file(tmp_path / "reviewed.jsonl", minimum=1).examples == 1


def test_a_batch_keeps_no_chats(client: openai.OpenAI, engine: TellingEngine) -> None:
    body = {"model": BASE, "messages": USER, "store": True, "metadata": {"a": "b"}}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    assert wait(client, create(client, [line])).status == "completed"
    assert "store" not in engine.asked[-1]
    assert list(client.chat.completions.list()) == []


@pytest.mark.parametrize(
    "large",
    [
        {"question": "x" * 600_000},
        {"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 500_000}}]},
        {"extra_body": {"chat_template_kwargs": {"x" * 500_000: 1}}},
        {"extra_body": {"chat_template_kwargs": {"numbers": list(range(10_000, 80_000))}}},
    ],
    ids=["messages", "tools", "names", "numbers"],
)
def test_a_chat_that_is_too_large_is_answered_and_not_kept(client: openai.OpenAI, large: dict[str, Any]) -> None:
    """Only messages were measured: 8 MB of tools were kept with each."""
    made = ask(client, **{"question": "x" * 300_000, **large})  # asked and echoed
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(made.id)


def test_a_chat_that_waits_for_a_busy_database_is_no_missing_one(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was 404: a client took it for never kept."""

    def busy(*_: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    with monkeypatch.context() as patched:
        patched.setattr(ChatKeeper, "_insert", busy)
        made = ask(client)
        chats = client.with_options(max_retries=0).chat.completions
        calls: list[Any] = [
            lambda: chats.retrieve(made.id),
            lambda: chats.messages.list(made.id),
            lambda: chats.update(made.id, metadata={"ticket": "9"}),
            lambda: chats.delete(made.id),
        ]
        for call in calls:
            with pytest.raises(openai.InternalServerError, match="could not be written yet") as told:
                call()
            assert told.value.status_code == 503
    assert client.chat.completions.retrieve(made.id).choices[0].message.content
