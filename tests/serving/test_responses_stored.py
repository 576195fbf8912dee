"""Stored responses: there for who made them and for admins, durable once told, gone when they should be."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import func, select, update

from local_llm.identifiers import now
from local_llm.keys import KeyStore
from local_llm.permissions import Caller
from local_llm.projects import ProjectStore
from local_llm.settings import load_settings
from local_llm.state import Project, ResponseRow, open_state
from serving.responses.store import LONGEST_CONVERSATION_CHARACTERS, MOST_TURNS, Conversation, ResponseStore

from .conftest import BASE
from .recording_engine import SmallEngine, running
from .replies import LIMIT, Reply
from .vector_store_world import URL, World, running_gateway

BOTH_DATABASES = True

DAY_SECONDS = 24 * 3600
ROOM = 1 << 30


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_gateway(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module")
def engine(world: World) -> Iterator[SmallEngine]:
    small = SmallEngine()
    with running(small, world.settings.place.ensure().socket("engine")):
        yield small


@pytest.fixture
def ana(world: World, engine: SmallEngine) -> openai.OpenAI:
    engine.reply = Reply("Aye.")
    return world.client("ana")


def said(engine: SmallEngine) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in engine.asked[-1][1]["messages"]]


def gone(client: openai.OpenAI, response_id: str) -> None:
    for use in (
        lambda: client.responses.retrieve(response_id),
        lambda: client.responses.input_items.list(response_id),
        lambda: client.responses.delete(response_id),
        lambda: client.responses.cancel(response_id),
        lambda: client.responses.create(model=BASE, input="And?", previous_response_id=response_id),
    ):
        with pytest.raises(openai.NotFoundError):
            use()


def test_a_conversation_goes_on_without_being_sent_again(ana: openai.OpenAI, engine: SmallEngine) -> None:
    first = ana.responses.create(model=BASE, instructions="Be a pirate.", input="One")
    engine.reply = Reply("Two it is.")
    second = ana.responses.create(model=BASE, input="Two", previous_response_id=first.id)
    assert said(engine) == [("user", "One"), ("assistant", "Aye."), ("user", "Two")]  # instructions are not kept
    assert second.previous_response_id == first.id
    with ana.responses.stream(
        model=BASE, instructions="Be brief.", input="Three", previous_response_id=second.id
    ) as stream:
        third = stream.get_final_response()
    assert said(engine) == [
        ("system", "Be brief."), ("user", "One"), ("assistant", "Aye."), ("user", "Two"),
        ("assistant", "Two it is."), ("user", "Three"),
    ]  # fmt: skip
    assert ana.responses.retrieve(third.id).previous_response_id == second.id
    branch = ana.responses.create(model=BASE, input="Or else", previous_response_id=first.id)
    assert said(engine) == [("user", "One"), ("assistant", "Aye."), ("user", "Or else")]
    assert branch.id != second.id


def test_it_is_seen_by_who_made_it_and_by_admins(world: World, ana: openai.OpenAI) -> None:
    made = ana.responses.create(model=BASE, input="One")
    assert ana.responses.retrieve(made.id).to_dict() == made.to_dict()
    assert world.client("admin").responses.retrieve(made.id).output_text == "Aye."
    gone(world.client("bob"), made.id)
    with world.state.session() as session:
        if session.get(Project, "proj_b") is None:
            session.add(Project(id="proj_b", name="b", created_at=0, archived_at=None))
    stranger = KeyStore(world.state).create("proj_b", "eve", role="admin").secret
    gone(openai.OpenAI(api_key=stranger, base_url=f"{URL}/v1", http_client=world.gateway, max_retries=0), made.id)


def test_a_deleted_response_is_gone_and_ends_what_went_on_from_it(ana: openai.OpenAI) -> None:
    first = ana.responses.create(model=BASE, input="One")
    second = ana.responses.create(model=BASE, input="Two", previous_response_id=first.id)
    ana.responses.delete(first.id)
    gone(ana, first.id)
    assert ana.responses.retrieve(second.id).output_text == "Aye."
    with pytest.raises(openai.NotFoundError, match=first.id) as refusal:
        ana.responses.create(model=BASE, input="Three", previous_response_id=second.id)
    assert (refusal.value.code, refusal.value.param) == ("previous_response_not_found", "previous_response_id")


def test_what_is_not_to_be_stored_is_not(world: World, ana: openai.OpenAI) -> None:
    made = ana.responses.create(model=BASE, input="One", store=False)
    assert made.store is False
    gone(ana, made.id)
    project_id = world.state.local_project_id()
    set_storing(world, project_id, False)
    try:
        made = ana.responses.create(model=BASE, input="One", store=True)
        assert made.store is False
        gone(ana, made.id)
    finally:
        set_storing(world, project_id, True)
    assert ana.responses.create(model=BASE, input="One").store is True


def set_storing(world: World, project_id: str, stores: bool) -> None:
    with world.state.session() as session:
        session.execute(update(Project).where(Project.id == project_id).values(store_responses=stores))


def test_input_items_are_listed_as_the_client_reads_them(ana: openai.OpenAI) -> None:
    items = [{"role": "user", "content": f"Number {n}"} for n in range(25)]
    made = ana.responses.create(model=BASE, input=items)
    for order in ("asc", "desc"):
        listed = list(ana.responses.input_items.list(made.id, order=order, limit=10))
        texts = [item.content[0].text for item in listed]
        assert texts == [f"Number {n}" for n in (range(25) if order == "asc" else range(24, -1, -1))]
        assert len({item.id for item in listed}) == 25
        assert {(item.type, item.role, item.status) for item in listed} == {("message", "user", "completed")}
    with pytest.raises(openai.NotFoundError):
        ana.responses.input_items.list(made.id, after="msg_nope")


def test_only_background_responses_could_be_cancelled_or_streamed_again(ana: openai.OpenAI) -> None:
    made = ana.responses.create(model=BASE, input="One")
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        ana.responses.cancel(made.id)
    with pytest.raises(openai.BadRequestError, match="background"):
        ana.responses.retrieve(made.id, stream=True)


def test_what_has_not_been_used_for_the_days_of_the_settings_is_gone(world: World, ana: openai.OpenAI) -> None:
    old, first = ana.responses.create(model=BASE, input="Old"), ana.responses.create(model=BASE, input="One")
    with world.state.session() as session:
        session.execute(
            update(ResponseRow)
            .where(ResponseRow.id.in_([old.id, first.id]))
            .values(used_at=now() - 29 * DAY_SECONDS)
        )
    second = ana.responses.create(model=BASE, input="Two", previous_response_id=first.id)
    with world.state.session() as session:  # two days later
        session.execute(update(ResponseRow).values(used_at=ResponseRow.used_at - 2 * DAY_SECONDS))
    gone(ana, old.id)
    ana.responses.create(
        model=BASE, input="Three", previous_response_id=second.id
    )  # a conversation lives as a whole
    ResponseStore(world.state, 30, ROOM).sweep()
    with world.state.reading() as session:
        found = session.scalar(select(func.count()).where(ResponseRow.id.in_([old.id, first.id])))
    assert found == 1


def test_a_conversation_too_long_is_cut_at_its_old_end_or_refused(ana: openai.OpenAI, engine: SmallEngine) -> None:
    words = " ".join(["word"] * (LIMIT // 5))
    turns = [item for n in range(6) for item in (
        {"role": "user", "content": f"{n} {words}"}, {"role": "assistant", "content": f"answer {n}"},
    )]  # fmt: skip
    request = {
        "model": BASE, "instructions": "Be brief.", "max_output_tokens": 100,
        "input": [*turns, {"role": "user", "content": "And now?"}],
    }  # fmt: skip
    made = ana.responses.create(truncation="auto", **request)
    kept = said(engine)
    assert (kept[0], kept[-1]) == (("system", "Be brief."), ("user", "And now?"))
    assert [content.split()[0] for role, content in kept[1:-1] if role == "user"] == ["2", "3", "4", "5"]
    assert made.truncation == "auto"
    ana.responses.create(truncation="disabled", **request)  # the engine says what it thinks of that
    assert len(said(engine)) == 14
    alone = ana.responses.create(model=BASE, truncation="auto", input=f"{words} " * 6)
    assert alone.status == "completed"


def test_a_conversation_without_end_is_refused(world: World, ana: openai.OpenAI) -> None:
    first = ana.responses.create(model=BASE, input="One")
    with world.state.session() as session:
        row = session.get_one(ResponseRow, first.id)
        told = {"project_id": row.project_id, "key_id": row.key_id, "created_at": now(), "used_at": now()}
        ids = [first.id, *(f"resp_turn_{n}" for n in range(1, MOST_TURNS + 1))]
        for previous_id, response_id in pairwise(ids):
            answer = {"id": response_id, "output": []}
            session.add(ResponseRow(
                id=response_id, previous_id=previous_id, response=answer, input_items=[], **told
            ))  # fmt: skip
    store, caller = ResponseStore(world.state, 30, ROOM), world.admin
    assert len(store.conversation(caller, ids[-2]).ids) == MOST_TURNS
    with pytest.raises(openai.BadRequestError, match="1000 responses"):
        ana.responses.create(model=BASE, input="And?", previous_response_id=ids[-1])


def test_a_conversation_of_too_much_text_is_refused_before_it_is_read(world: World, ana: openai.OpenAI) -> None:
    first = ana.responses.create(model=BASE, input="One " + "word " * 100)
    second = ana.responses.create(model=BASE, input="Two", previous_response_id=first.id)
    with world.state.session() as session:
        row = session.get_one(ResponseRow, first.id)
        written = len(json.dumps(row.response)) + len(json.dumps(row.input_items))
        assert 0.7 * written < row.size < 1.5 * written
        row.size = LONGEST_CONVERSATION_CHARACTERS
    with pytest.raises(openai.BadRequestError, match="characters; expected at most 33554432") as refusal:
        ana.responses.create(model=BASE, input="Three", previous_response_id=second.id)
    assert refusal.value.param == "previous_response_id"


def test_a_project_stores_no_more_responses_than_it_has_room_for(tmp_path: Path) -> None:
    """Nothing bounded them: they filled the state database."""
    with running_gateway(tmp_path / "full", **{"server.project_response_bytes": 5000}) as world:
        other = ProjectStore(world.state).create("other")
        secret = KeyStore(world.state).create(other.id, "app").secret
        with running(SmallEngine(), world.settings.place.ensure().socket("engine")):
            client = world.client("ana")
            made = [client.responses.create(model=BASE, input="word " * 100) for _ in range(6)]
            assert (made[0].to_dict()["store"], made[-1].to_dict()["store"]) == (True, False)
            assert made[-1].output_text
            gone(client, made[-1].id)
            elsewhere = openai.OpenAI(
                api_key=secret, base_url=f"{URL}/v1", http_client=world.gateway, max_retries=0
            )
            assert elsewhere.responses.create(model=BASE, input="One").to_dict()["store"] is True
            for one in made:
                if one.to_dict()["store"]:
                    client.responses.delete(one.id)
            assert client.responses.create(model=BASE, input="One").to_dict()["store"] is True


def test_of_items_that_no_model_reads_again_only_what_the_api_lists_is_kept(ana: openai.OpenAI) -> None:
    """Anything in them was stored, 15 MB of it with each request."""
    junk: dict[str, Any] = {"junk": "x" * 1000, "encrypted_content": "y" * 1000}
    items: list[Any] = [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm", **junk}], **junk},
        {"type": "file_search_call", "id": "fs_1", "queries": ["Why?"], "results": [junk], **junk},
        {"role": "user", "content": "One"},
    ]
    made = ana.responses.create(model=BASE, input=items)
    reasoning, search, _ = ana.responses.input_items.list(made.id, order="asc").data
    assert reasoning.to_dict() == {
        "id": "rs_1", "type": "reasoning", "status": "completed", "content": [],
        "summary": [{"type": "summary_text", "text": "Hm"}],
    }  # fmt: skip
    assert search.to_dict() == {
        "id": "fs_1", "type": "file_search_call", "status": "completed", "queries": ["Why?"], "results": None,
    }  # fmt: skip


def test_what_was_told_survives_a_kill(tmp_path: Path) -> None:
    """Complete to its client means on the disk: the process is killed right after keep() returned."""
    program = f"""
import os, signal, sys
from pathlib import Path
from local_llm.permissions import local_admin
from local_llm.settings import load_settings
from local_llm.state import open_state
from serving.responses.store import MOST_TURNS, Conversation, ResponseStore
state = open_state(load_settings(environment={{"LOCAL_LLM_HOME": {str(tmp_path)!r}}}).place)
caller = local_admin(state.local_project_id())
response = {{"id": "resp_1", "created_at": 1, "previous_response_id": None, "output": []}}
ResponseStore(state, 30, {ROOM}).keep(caller, response, [{{"id": "msg_1"}}], Conversation())
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == -signal.SIGKILL
    state = open_state(load_settings(environment={"LOCAL_LLM_HOME": str(tmp_path)}).place)
    caller = Caller(state.local_project_id(), "member")
    store = ResponseStore(state, 30, ROOM)
    assert store.get(caller, "resp_1").input_items == [{"id": "msg_1"}]
    assert store.conversation(caller, "resp_1") == Conversation(("resp_1",), ({"id": "msg_1"},))
    state.close()
