"""A training file for answers with retrieved context: what stands in its rows, and how the command makes it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index.interface import Record
from index.service import IndexService
from local_llm.cli.app import run
from local_llm.errors import InvalidInputError
from local_llm.prompts import OPEN_INSTRUCTION, REFUSAL, context_prompt, instruction_of
from local_llm.questions import Question
from serving.answering.citations import CitationWriter
from serving.raft.build import RaftReport, build
from serving.raft.rows import RaftSettings
from training.examples.data import check_training_file

from .vector_store_world import World, index_server, running_gateway

KINGS = {
    "rollo": "Rollo was a Viking who became the first ruler of Normandy.",
    "cnut": "Cnut was a Viking who became the king of England and of Denmark.",
    "harald": "Harald was a Viking who became the king of Norway after many battles.",
    "leif": "Leif was a Viking who sailed as far as the shores of America.",
    "olaf": "Olaf was a Viking who became the king of Norway and later a saint.",
    "sweyn": "Sweyn was a Viking who became the king of Denmark and took London.",
    "twin": "Sweyn was a Viking who became the king of Denmark and took London!",
    "copy": "The first ruler of Normandy is Rollo, says a document that no question names.",
}
WHO = "Which Viking became the first ruler of Normandy?"
SAINT = "Olaf became the king of Norway and later a saint."


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_gateway(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module")
def service(world: World) -> Iterator[IndexService]:
    with index_server(world) as made:
        made.create(world.admin, "kings")
        made.put(world.admin, "kings", [Record(name, text, title=name.title()) for name, text in KINGS.items()])
        yield made


@pytest.fixture
def ids(world: World, service: IndexService) -> dict[str, str]:
    return {one.name: one.id for one in service.documents(world.admin, "kings")}


def asked(ids: dict[str, str], text: str = WHO, answer: str | None = "Rollo", *documents: str) -> Question:
    return Question(text, frozenset(ids[name] for name in documents or ("rollo",)), answer)


def many(ids: dict[str, str], count: int = 20) -> list[Question]:
    """Questions that are not nearly the same."""
    return [asked(ids, f"{chr(97 + n) * 5} {chr(98 + n) * 4} which Viking became ruler?") for n in range(count)]


class Made:
    """A file that was built: its rows, and what was reported."""

    def __init__(self, path: Path, report: RaftReport):
        self.report = report
        self.rows = [json.loads(line)["messages"] for line in path.read_text().splitlines()]

    def prompts(self) -> list[str]:
        return [messages[0]["content"] for messages in self.rows]

    def answers(self) -> list[str]:
        return [messages[-1]["content"] for messages in self.rows]


@pytest.fixture
def make(world: World, service: IndexService, tmp_path: Path) -> Any:
    def made(questions: list[Question], **changed: Any) -> Made:
        settings = replace(RaftSettings(gold_share=1.0), **changed)
        out = tmp_path / "raft.jsonl"
        return Made(out, build(service, world.admin, "kings", questions, out, settings, state=world.state))

    return made


def test_a_prompt_is_the_servers_with_the_gold_passage_among_near_misses(ids: dict[str, str], make: Any) -> None:
    (messages,) = make([asked(ids)]).rows
    assert [message["role"] for message in messages] == ["user", "assistant"]
    prompt = messages[0]["content"]
    assert prompt.startswith(f"{instruction_of(None, only_from_context=True)}\n\nContext:\n[1] ")
    assert prompt.endswith(f"\n\nQuestion: {WHO}")
    assert KINGS["rollo"] in prompt
    assert prompt.count(" was a Viking who ") == 5
    # Not the document that holds the answer too, nor one that says the same as another.
    assert KINGS["copy"] not in prompt
    assert not (KINGS["sweyn"] in prompt and KINGS["twin"] in prompt)


def test_the_words_before_the_passages_are_the_profiles(ids: dict[str, str], make: Any) -> None:
    (prompt,) = make([asked(ids)], only_from_context=False).prompts()
    assert prompt.startswith(OPEN_INSTRUCTION)
    (prompt,) = make([asked(ids)], prompt="Answer like a skald.", refusal="I cannot tell.").prompts()
    assert prompt.startswith("Answer like a skald.\nAnswer the question only from the context")
    assert "say only: I cannot tell.\n" in prompt


def test_a_short_answer_names_the_gold_passage_and_the_server_shows_that_marker(
    ids: dict[str, str], make: Any
) -> None:
    (messages,) = make([asked(ids)]).rows
    prompt, answer = (message["content"] for message in messages)
    number = answer.removeprefix("Rollo [").removesuffix("]")
    assert f"[{number}] Rollo\n{KINGS['rollo']}" in prompt


def test_a_sentence_is_marked_as_the_server_marks_it(
    world: World, service: IndexService, ids: dict[str, str], make: Any
) -> None:
    (messages,) = make([asked(ids, "Who was a saint?", SAINT, "olaf")]).rows
    prompt, answer = (message["content"] for message in messages)
    assert answer.startswith(f"{SAINT} [")
    hits = service.search(world.admin, "kings", "saint", 8)
    shown = sorted(hits, key=lambda hit: prompt.find(hit.text) if hit.text in prompt else len(prompt))
    writer = CitationWriter(shown)
    assert writer.feed(SAINT) + writer.finish() == answer


def test_without_citations_the_answer_is_as_it_was_given(ids: dict[str, str], make: Any) -> None:
    made = make([asked(ids)], citations=False)
    assert made.answers() == ["Rollo"]
    assert made.report.cited == 0


def test_a_share_of_the_rows_has_no_gold_and_still_the_answer(ids: dict[str, str], make: Any) -> None:
    made = make(many(ids), gold_share=0.8)
    with_gold = [KINGS["rollo"] in prompt for prompt in made.prompts()]
    assert (sum(with_gold), made.report.with_gold, made.report.rows) == (16, 16, 20)
    assert {answer for answer, has in zip(made.answers(), with_gold, strict=True) if not has} == {"Rollo"}
    assert {answer[:7] for answer, has in zip(made.answers(), with_gold, strict=True) if has} == {"Rollo ["}
    assert {prompt.count(" was a Viking who ") for prompt in made.prompts()} == {5}


def test_without_gold_the_model_can_be_taught_to_refuse(ids: dict[str, str], make: Any) -> None:
    made = make(many(ids), gold_share=0.5, without_gold="refusal")
    assert made.answers().count(REFUSAL) == made.report.refusals == 10
    made = make(many(ids), gold_share=0.0, without_gold="refusal", refusal="Ik weet het niet.")
    assert set(made.answers()) == {"Ik weet het niet."}


def test_the_same_seed_makes_the_same_file_and_the_gold_stands_anywhere(ids: dict[str, str], make: Any) -> None:
    first, again, other = make(many(ids)), make(many(ids)), make(many(ids), seed=1)
    assert first.rows == again.rows
    assert first.rows != other.rows
    assert {*first.answers(), *other.answers()} == {f"Rollo [{number}]" for number in range(1, 6)}


def test_no_passage_of_any_gold_document_is_a_distractor(ids: dict[str, str], make: Any) -> None:
    question = asked(ids, "Which Viking became the king of Norway?", "Harald", "harald", "olaf")
    (prompt,) = make([question], passages=8).prompts()
    assert KINGS["harald"] in prompt
    assert KINGS["olaf"] not in prompt


def test_an_answer_in_no_passage_takes_the_best_of_the_document(ids: dict[str, str], make: Any) -> None:
    made = make([asked(ids, WHO, "A man from the north.")])
    assert KINGS["rollo"] in made.prompts()[0]
    assert made.answers() == ["A man from the north."]
    assert made.report.gold_without_answer == 1


def test_a_gold_passage_that_the_search_ranks_low_is_found(ids: dict[str, str], make: Any) -> None:
    (prompt,) = make([asked(ids, KINGS["cnut"], "America", "leif")], passages=1).prompts()
    assert KINGS["leif"] in prompt


def test_what_is_left_out_is_counted(ids: dict[str, str], make: Any) -> None:
    again = asked(ids, "Which Viking became the very first ruler of Normandy, which Viking became the first ruler?")
    nearly = replace(again, text=again.text.replace("?", " now?"))
    other = replace(nearly, answer="first ruler of Normandy")  # the same question, another answer: not the same
    unknown = Question("Who is this?", frozenset({"doc_none"}), "Nobody")
    made = make([asked(ids), asked(ids, "Who?", None), again, nearly, other, unknown], passages=20)
    report = made.report
    assert (report.rows, report.without_answer, report.near_duplicates, report.without_passage) == (3, 1, 1, 1)
    assert report.left_out == 3
    assert report.fewer_passages == 3
    assert report.near_equal_passages >= 3


def test_nothing_is_written_where_nothing_can_be(
    world: World, service: IndexService, ids: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "raft.jsonl"
    for questions, settings in (
        ([asked(ids, WHO, None)], RaftSettings()),
        ([asked(ids)], RaftSettings(passages=0)),
        ([asked(ids)], RaftSettings(gold_share=1.5)),
    ):
        with pytest.raises(InvalidInputError):
            build(service, world.admin, "kings", questions, out, settings, state=world.state)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def questions(tmp_path: Path, ids: dict[str, str]) -> Path:
    path = tmp_path / "questions.jsonl"
    rows = [{"question": one.text, "documents": ["rollo"], "answer": one.answer} for one in many(ids, 10)] + [
        {"question": "Who is odd?", "documents": ["nowhere"], "answer": "x"}
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def command(world: World, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LOCAL_LLM_HOME", str(world.settings.home))
    arguments = ["train", "dataset", "raft", str(questions), "--out", str(tmp_path / "train.jsonl")]

    def run_command(*more: str) -> int:
        return run([*arguments, *more])

    return run_command


def test_the_command_writes_an_ordinary_training_file_that_the_api_takes(
    command: Any, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--collection", "kings", "--seed", "3", "--json") == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert (told["rows"], told["with_gold"], told["cited"], told["without_document"]) == (10, 8, 8, 1)
    assert "questions left out, naming no document of the collection: 1" in captured.err
    out = tmp_path / "train.jsonl"
    assert check_training_file(out).examples == 10
    client = world.client()
    stored = client.files.create(file=out, purpose="fine-tune")
    assert client.fine_tuning.jobs.create(model="SmolLM2-135M-Instruct", training_file=stored.id).status == "queued"
    assert command("--collection", "kings") == 1
    assert "--force" in capsys.readouterr().err
    assert command("--collection", "kings", "--force", "--gold-share", "0", "--without-gold", "refusal") == 0
    assert "10 examples, 0 with the gold passage" in capsys.readouterr().out


def test_a_row_reads_as_the_server_would_ask_the_model(
    world: World, service: IndexService, ids: dict[str, str], make: Any
) -> None:
    (prompt,) = make([asked(ids)], passages=1).prompts()
    (hit,) = [hit for hit in service.search(world.admin, "kings", WHO, 8) if hit.document_id == ids["rollo"]]
    assert prompt == context_prompt(WHO, [hit])
