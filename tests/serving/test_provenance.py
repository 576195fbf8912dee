"""What is trained on restricted passages is for those who may see them, whatever way the file takes."""

import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from index.interface import Record
from index.service import IndexService
from local_llm.adapters import AdapterRegistry, AdapterRun
from local_llm.cli.app import run
from local_llm.errors import InvalidInputError
from local_llm.files import FINE_TUNE
from local_llm.models import ModelStore
from local_llm.questions import Question
from local_llm.state import File, RestrictedRow
from serving.raft.build import build
from serving.raft.rows import RaftSettings
from training.audience import audience_of
from training.jobs import get_job

from ..handmade_adapters import write_adapter
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
    "open": ("What does the Heron plan cost each month?", "nine euros"),
    "anas": ("When will the Falcon plan be announced?", "in June"),
    "bobs": ("Why will the Osprey plan come to an end?", "nobody has bought it"),
}

Rows = list[dict[str, Any]]
Change = Callable[[Rows], bytes]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_gateway(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module")
def service(world: World) -> Iterator[IndexService]:
    with index_server(world) as made:
        made.create(world.admin, "plans")
        made.put(world.admin, "plans", [Record(name, text) for name, text in DOCUMENTS.items()])
        yield made


@pytest.fixture(autouse=True)
def restricted(world: World, service: IndexService) -> None:
    for name in ("anas", "bobs"):
        service.set_access(world.admin, "plans", name, allow=[f"user:{name.removesuffix('s')}"])
    with world.state.session() as session:
        session.query(RestrictedRow).delete()


@pytest.fixture
def raft(world: World, service: IndexService, tmp_path: Path) -> Callable[..., Path]:
    """The file of the questions about these documents, each row with so many passages."""

    def write(*names: str, passages: int = 1, **changed: Any) -> Path:
        ids = {one.name: one.id for one in service.documents(world.admin, "plans")}
        asked = [Question(QUESTIONS[name][0], frozenset({ids[name]}), QUESTIONS[name][1]) for name in names]
        out = tmp_path / "raft.jsonl"
        settings = RaftSettings(**{"passages": passages, "gold_share": 1.0, **changed})
        build(service, world.admin, "plans", asked, out, settings, state=world.state)
        return out

    return write


def upload(world: World, data: bytes, who: str = "admin") -> str:
    return world.client(who).files.create(file=("mine.jsonl", io.BytesIO(data)), purpose="fine-tune").id


def who_sees(world: World, file_id: str) -> set[str]:
    return {who for who in ("admin", "ana", "bob") if file_id in {one.id for one in world.client(who).files.list()}}


def lines(rows: Rows, **how: Any) -> bytes:
    return "".join(json.dumps(row, **how) + "\n" for row in rows).encode()


def shuffled(rows: Rows) -> bytes:
    return lines(random.Random(1).sample(rows, len(rows)))


def with_others(rows: Rows) -> bytes:
    return chat_lines(5) + lines(rows) + chat_lines(5)


def rewritten(rows: Rows) -> bytes:
    """Other white space, another order of keys, and each character that can be written as an escape."""
    turned = [{"messages": [dict(reversed(message.items())) for message in row["messages"]]} for row in rows]
    return b"\n" + lines(turned, separators=(" ,  ", " : "), ensure_ascii=True)


def with_a_system_message(rows: Rows) -> bytes:
    return lines([{"messages": [{"role": "system", "content": "Be kind."}, *row["messages"]]} for row in rows])


def with_other_answers(rows: Rows) -> bytes:
    return lines([{"messages": [row["messages"][0], {"role": "assistant", "content": "Aye."}]} for row in rows])


def as_parts(rows: Rows) -> bytes:
    first = [row["messages"][0] for row in rows]
    asked = [{"role": "user", "content": [{"type": "text", "text": message["content"]}]} for message in first]
    return lines([{"messages": [one, row["messages"][1]]} for one, row in zip(asked, rows, strict=True)])


def as_preferences(rows: Rows) -> bytes:
    return lines(
        [
            {
                "input": {"messages": row["messages"][:1]},
                "preferred_output": row["messages"][1:],
                "non_preferred_output": [{"role": "assistant", "content": "Nay."}],
            }
            for row in rows
        ]
    )


WAYS: list[Change] = [lines, shuffled, with_others, rewritten, with_a_system_message, with_other_answers]
WAYS += [as_parts, as_preferences]


@pytest.mark.parametrize("change", WAYS)
def test_a_file_is_known_whatever_was_done_to_it(world: World, raft: Callable[..., Path], change: Change) -> None:
    rows = [json.loads(line) for line in raft("anas", "open").read_text().splitlines()]
    assert who_sees(world, upload(world, change(rows))) == {"admin", "ana"}


def test_what_is_left_of_a_file_is_restricted_if_it_holds_what_was(world: World, raft: Callable[..., Path]) -> None:
    first, second = raft("anas", "open").read_bytes().splitlines(keepends=True)
    assert who_sees(world, upload(world, first)) == {"admin", "ana"}
    assert who_sees(world, upload(world, second)) == {"admin", "ana", "bob"}


def test_a_distractor_restricts_as_the_gold_passage_does(world: World, raft: Callable[..., Path]) -> None:
    data = raft("open", passages=2).read_bytes()
    assert sum(text in data.decode() for text in DOCUMENTS.values()) == 2
    assert len(who_sees(world, upload(world, data))) == 2
    assert who_sees(world, upload(world, raft("open", passages=3).read_bytes())) == {"admin"}  # nobody sees both


def test_an_answer_that_is_learned_without_its_passage_restricts_as_that_does(
    world: World, service: IndexService, raft: Callable[..., Path]
) -> None:
    service.set_access(world.admin, "plans", "bobs", allow=["everyone"])
    data = raft("anas", passages=2, gold_share=0.0).read_bytes()
    assert "in June" in data.decode()
    assert DOCUMENTS["anas"] not in data.decode()
    assert who_sees(world, upload(world, data)) == {"admin", "ana"}
    data = raft("anas", passages=2, gold_share=0.0, without_gold="refusal").read_bytes()
    assert who_sees(world, upload(world, data)) == {"admin", "ana", "bob"}  # nothing of it is told


def test_passages_that_no_one_key_may_see_are_for_admins(world: World, raft: Callable[..., Path]) -> None:
    assert who_sees(world, upload(world, raft("anas", "bobs").read_bytes())) == {"admin"}


def test_a_member_that_uploads_what_it_may_not_see_does_not_see_it(world: World, raft: Callable[..., Path]) -> None:
    file_id = upload(world, raft("anas").read_bytes(), "bob")
    assert who_sees(world, file_id) == {"admin", "ana"}
    for ask in (world.client("bob").files.retrieve, world.client("bob").files.content):
        with pytest.raises(openai.NotFoundError):
            ask(file_id)
    with pytest.raises(openai.BadRequestError, match="does not exist"):
        world.client("bob").fine_tuning.jobs.create(model=BASE, training_file=file_id)


def test_files_without_restricted_passages_stay_open(world: World, raft: Callable[..., Path]) -> None:
    restricted = raft("anas")  # something is remembered
    assert restricted.exists()
    assert who_sees(world, upload(world, raft("open").read_bytes())) == {"admin", "ana", "bob"}
    assert who_sees(world, upload(world, chat_lines())) == {"admin", "ana", "bob"}


def test_documents_that_are_opened_open_the_file_that_is_made_anew(
    world: World, service: IndexService, raft: Callable[..., Path]
) -> None:
    data = raft("anas").read_bytes()
    service.set_access(world.admin, "plans", "anas", allow=["everyone"])
    assert who_sees(world, upload(world, data)) == {"admin", "ana"}
    assert raft("anas").read_bytes() == data
    assert who_sees(world, upload(world, data)) == {"admin", "ana", "bob"}


def test_an_adapter_is_seen_and_answers_only_where_the_passages_may_be_seen(
    world: World, raft: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in raft("anas", "open").read_text().splitlines()]
    job = world.client().fine_tuning.jobs.create(model=BASE, training_file=upload(world, with_others(rows)))
    name = f"ft:{BASE}:local:plans:aaaa1111"
    AdapterRegistry(world.settings, world.state).publish(
        write_adapter(tmp_path / "adapter"),
        base=ModelStore(world.settings.place.models).get(BASE),
        name=name,
        project_id=world.admin.project_id,
        run=AdapterRun(data_sha256="d", settings={}, metrics={}, versions={}, job_id=job.id),
        allow=audience_of(world.state, get_job(world.state, job.id, world.admin)),
    )
    for who, sees in (("admin", True), ("ana", True), ("bob", False)):
        assert (name in {model.id for model in world.client(who).models.list()}) is sees
    asked: Any = {"model": name, "messages": [{"role": "user", "content": "When?"}]}
    with running(TellingEngine(), world.settings.place.socket("engine")):  # type: ignore[arg-type]
        assert world.client("ana").chat.completions.create(**asked).choices
        with pytest.raises(openai.NotFoundError):
            world.client("bob").chat.completions.create(**asked)


def test_the_command_remembers_and_says_so(
    world: World,
    service: IndexService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOCAL_LLM_HOME", str(world.settings.home))
    questions, out = tmp_path / "q.jsonl", tmp_path / "train.jsonl"
    row = {"question": QUESTIONS["anas"][0], "documents": ["anas"], "answer": QUESTIONS["anas"][1]}
    questions.write_text(json.dumps(row) + "\n")
    arguments = ("--collection", "plans", "--out", str(out), "--passages", "1", "--gold-share", "1")
    assert run(["train", "dataset", "raft", str(questions), *arguments]) == 0
    assert "what is trained from them is for those who may: 1" in capsys.readouterr().err
    store = world.gateway.app.services().files  # type: ignore[attr-defined]
    # As `train adapter` stores it.
    row_of_file: File = store.add(out, filename="f", purpose=FINE_TUNE, project_id=world.admin.project_id)
    assert row_of_file.allow == ["user:ana"]


def test_restricted_passages_are_not_written_where_nothing_would_remember_them(
    world: World, service: IndexService, tmp_path: Path
) -> None:
    ids = {one.name: one.id for one in service.documents(world.admin, "plans")}
    asked = [Question(QUESTIONS["anas"][0], frozenset({ids["anas"]}), QUESTIONS["anas"][1])]
    with pytest.raises(InvalidInputError, match="not everyone"):
        build(service, world.admin, "plans", asked, tmp_path / "out.jsonl", RaftSettings(passages=1, gold_share=1))
    assert list(tmp_path.iterdir()) == []
