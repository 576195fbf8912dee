"""What is exported of chats that were answered from restricted documents is for those who may see these."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from index.interface import Record
from index.service import IndexService
from local_llm.cli.app import run
from local_llm.identifiers import now
from local_llm.projects import ProjectStore
from local_llm.state import ChatRow, RestrictedRow

from .conftest import BASE, chat_lines
from .recording_engine import running
from .telling_engine import TellingEngine
from .vector_store_world import World, index_server, running_gateway

DOCUMENTS = {
    "open": "The Heron plan costs nine euros a month for each device that is connected.",
    "anas": "The Falcon plan will be announced in June and costs four euros a month.",
    "bobs": "The Osprey plan will be ended in July because nobody has bought it.",
}
QUESTIONS = {
    "open": "What does the Heron plan cost each month?",
    "anas": "When will the Falcon plan be announced?",
    "bobs": "Why will the Osprey plan come to an end?",
}
REFUSAL = "Das weiß ich leider gar nicht."
EVERYONE = {"admin", "ana", "bob"}

Asks = Callable[..., str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_gateway(tmp_path_factory.mktemp("world")) as made:
        ProjectStore(made.state).update(made.admin.project_id, store_chats=True)
        with running(TellingEngine(), made.settings.place.socket("engine")):  # type: ignore[arg-type]
            yield made


@pytest.fixture(scope="module")
def service(world: World) -> Iterator[IndexService]:
    with index_server(world) as made:
        made.create(world.admin, "plans")
        profiles: list[dict[str, Any]] = [
            {"name": "help", "strategy": "rag", "collection": "plans", "k": 1, "refusal": REFUSAL},
            {"name": "polite", "strategy": "base", "prompt": "Be kind."},
        ]
        for profile in profiles:
            world.client().post("/profiles", body=profile, cast_to=object)
        yield made


@pytest.fixture(autouse=True)
def documents(world: World, service: IndexService) -> None:
    """As at first, and nothing remembered."""
    service.put(world.admin, "plans", [Record(name, text) for name, text in DOCUMENTS.items()])
    for name in ("anas", "bobs"):
        service.set_access(world.admin, "plans", name, allow=[f"user:{name.removesuffix('s')}"])
    with world.state.session() as session:
        session.query(RestrictedRow).delete()
        session.query(ChatRow).delete()


@pytest.fixture
def ask(world: World) -> Asks:
    """Asks about a document, and rates the answer; a `correction` takes its place."""

    def of(name: str, correction: str | None = None, *, who: str = "admin", model: str = "help") -> str:
        client = world.client(who)
        question: Any = [{"role": "user", "content": QUESTIONS[name]}]
        made = client.chat.completions.create(model=model, messages=question, store=True)
        review = {"rating": "good", "correction": correction}
        client.post(f"/chat/completions/{made.id}/rating", body=review, cast_to=object)
        return made.id

    return of


def exported(world: World, who: str = "admin", **query: Any) -> bytes:
    headers = {"authorization": f"Bearer {world.secrets[who]}"}
    answer = world.gateway.get("/v1/chat/completions/export", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.content


def who_sees(world: World, data: bytes, who: str = "admin") -> set[str]:
    """An uploaded training file."""
    made = world.client(who).files.create(file=("mine.jsonl", io.BytesIO(data)), purpose="fine-tune").id
    return {who for who in EVERYONE if made in {one.id for one in world.client(who).files.list()}}


def forget_documents(world: World) -> None:
    """As chats were kept before."""
    with world.state.session() as session:
        for row in session.query(ChatRow):
            row.prompt = row.prompt and {"messages": row.prompt["messages"]}


@pytest.mark.parametrize("with_context", [True, False])
def test_a_copy_of_an_export_is_for_those_who_may_see_the_documents(
    world: World, ask: Asks, with_context: bool
) -> None:
    ask("anas", "It will be announced in June, as the plan says.")
    ask("open", "It costs nine euros for each connected device.")
    of_ana, of_all = exported(world, with_context=with_context).splitlines(keepends=True)
    assert (DOCUMENTS["anas"] in of_ana.decode()) is with_context
    assert who_sees(world, chat_lines(5) + of_all + of_ana) == {"admin", "ana"}
    assert who_sees(world, of_ana, "bob") == {"admin", "ana"}  # whoever brings it
    assert who_sees(world, of_all) == EVERYONE


def test_the_passages_are_known_beside_another_answer_too(world: World, ask: Asks) -> None:
    ask("anas")
    (row,) = map(json.loads, exported(world, with_context=True).splitlines())
    row["messages"][-1]["content"] = "Aye."
    assert who_sees(world, json.dumps(row).encode() + b"\n") == {"admin", "ana"}


def test_an_answer_as_it_was_given_is_known_without_its_markers(world: World, ask: Asks) -> None:
    chat = ask("anas")  # the engine repeats the passage
    kept = world.client().chat.completions.retrieve(chat).choices[0].message.content
    data = exported(world)
    assert kept is not None
    assert json.loads(data)["messages"][-1]["content"] != kept
    assert who_sees(world, data) == {"admin", "ana"}


def test_the_same_answer_from_two_documents_is_for_those_who_may_see_both(world: World, ask: Asks) -> None:
    for name in ("anas", "bobs", "open"):
        ask(name, "You find it in the list of all our plans.")
    assert who_sees(world, exported(world).splitlines(keepends=True)[2]) == {"admin"}


def test_whoever_exports_need_not_see_the_documents_any_more(
    world: World, service: IndexService, ask: Asks
) -> None:
    service.set_access(world.admin, "plans", "bobs", allow=["everyone"])
    ask("bobs", who="ana")
    service.set_access(world.admin, "plans", "bobs", allow=["user:bob"])
    assert who_sees(world, exported(world, "ana"), "ana") == {"admin", "bob"}


def test_a_document_that_is_gone_leaves_its_chats_to_admins(world: World, service: IndexService, ask: Asks) -> None:
    ask("open")
    service.remove(world.admin, "plans", ["open"])
    assert who_sees(world, exported(world)) == {"admin"}


def test_documents_that_are_opened_open_the_export_that_is_made_anew(
    world: World, service: IndexService, ask: Asks
) -> None:
    ask("anas")
    data = exported(world, with_context=True)
    service.set_access(world.admin, "plans", "anas", allow=["everyone"])
    assert who_sees(world, data) == {"admin", "ana"}
    assert exported(world, with_context=True) == data
    assert who_sees(world, data) == EVERYONE


@pytest.mark.parametrize("answer", ["In June, it says.", REFUSAL])
def test_answers_that_fit_any_question_restrict_no_other_file(world: World, ask: Asks, answer: str) -> None:
    ask("anas", answer)
    with_it = {"messages": [{"role": "user", "content": "When?"}, {"role": "assistant", "content": answer}]}
    assert exported(world)
    assert who_sees(world, json.dumps(with_it).encode() + b"\n") == EVERYONE
    assert who_sees(world, exported(world, with_context=True)) == {"admin", "ana"}


@pytest.mark.parametrize("with_context", [True, False])
def test_chats_whose_documents_nobody_noted_are_for_admins(world: World, ask: Asks, with_context: bool) -> None:
    ask("open")
    forget_documents(world)
    assert who_sees(world, exported(world, with_context=with_context)) == {"admin"}


@pytest.mark.parametrize("model", [BASE, "polite"])
def test_chats_without_passages_are_for_everyone_however_old(world: World, ask: Asks, model: str) -> None:
    ask("anas", model=model)
    assert who_sees(world, exported(world, with_context=True)) == EVERYONE
    forget_documents(world)
    assert who_sees(world, exported(world, with_context=True)) == EVERYONE


def test_the_command_remembers_and_says_so(
    world: World,
    ask: Asks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOCAL_LLM_HOME", str(world.settings.home))
    out = tmp_path / "reviewed.jsonl"
    for _ in range(2):
        ask("open")
    world.client().chat.completions.list()  # they are written
    forget_documents(world)
    ask("anas")
    ask("anas", "In June.")
    ask("open")
    assert run(["train", "dataset", "chats", "--out", str(out), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["restricted"] == 4
    for line in ("for those who may: 4", "for admins only: 2", "whose the file is: 1"):
        assert told.err.count(line) == 1
    rows = out.read_bytes().splitlines(keepends=True)
    assert [who_sees(world, rows[at]) for at in (0, 2, 3)] == [{"admin"}, {"admin", "ana"}, EVERYONE]


def test_nothing_is_handed_out_where_nobody_can_say_who_may_see_it(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "alone") as world:  # without an index server
        with world.state.session() as session:
            session.add(kept_chat(world))
        headers = {"authorization": f"Bearer {world.secrets['admin']}"}
        answer = world.gateway.get("/v1/chat/completions/export", headers=headers)
        assert answer.status_code == 503
        with world.state.session() as session:  # without documents nobody asks the index
            session.query(ChatRow).update({"prompt": None})
        assert world.gateway.get("/v1/chat/completions/export", headers=headers).headers["x-restricted"] == "0"


def kept_chat(world: World) -> ChatRow:
    answer = {"role": "assistant", "content": "It will be announced in June."}
    asked = {"role": "user", "content": "When?"}
    return ChatRow(
        id="chatcmpl-1",
        project_id=world.admin.project_id,
        created_at=now(),
        model=BASE,
        labels={},
        request={"model": BASE, "messages": [asked]},
        answer={"choices": [{"index": 0, "message": answer, "finish_reason": "stop"}]},
        prompt={"messages": [{**asked, "content": "Context: …"}], "documents": [["plans", "doc_1"]]},
        rating="good",
    )
