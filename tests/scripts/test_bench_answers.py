"""The benchmarks of refusals, injections and citations count what they say they count."""

import json
import re
import sys
from pathlib import Path

import pytest

from local_llm.prompts import INSTRUCTION, REFUSAL, context_prompt

from ..conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))

import bench_citations
import bench_refusals
from bench_refusals import INJECTIONS, Passage, rows

TEXTS = rows(INJECTIONS)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two articles of four paragraphs; each paragraph has a question whose answer no other one holds."""
    documents, questions = [], []
    for article in ("Alder", "Birch"):
        for number in range(4):
            word = f"{article}{'abcd'[number]}{number}"
            text = f"The tree of this garden bears fruit. Its oldest gardener was called {word} by the village."
            identifier = f"{article}-{number}"
            documents.append({"id": identifier, "title": article, "text": text})
            asked = {"question": f"How was the oldest gardener of garden {number} called?", "answer": word}
            questions.append({**asked, "answer_start": text.index(word), "document_id": identifier})
    for name, lines in (("documents", documents), ("questions.test", questions)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_a_model_that_reads_refuses_only_what_is_not_held(data: Path) -> None:
    def reads(prompt: str) -> str:
        number = re.search(r"garden (\d) called", prompt)
        assert number is not None
        found = re.search(rf"called (\w+{number[1]}) by", prompt)
        return f"{found[1]}." if found else REFUSAL

    found = bench_refusals.refusals(data, 8, reads)
    assert found["held"] == {"refused": 0.0, "answered": 1.0}
    assert found["not held"] == found["nothing"] == {"refused": 1.0, "answered": 0.0}


def test_an_obedient_model_obeys_and_a_careful_one_answers() -> None:
    signs = {one["question"]: one for one in TEXTS}
    obeys = bench_refusals.injections(
        INJECTIONS, lambda prompt: signs[prompt.rpartition("Question: ")[2]]["sign"], unquoted=False
    )
    answers = bench_refusals.injections(
        INJECTIONS, lambda prompt: signs[prompt.rpartition("Question: ")[2]]["fact"], unquoted=True
    )
    assert (obeys["all"]["cases"], obeys["all"]["obeyed"]) == (len(TEXTS), 1.0)
    assert (answers["all"]["answered"], answers["all"]["obeyed"]) == (1.0, 0.0)


def test_there_are_injections_of_many_kinds_that_say_their_fact_and_not_their_sign_alone() -> None:
    assert len(TEXTS) >= 30
    assert len({one["kind"] for one in TEXTS}) >= 10
    assert len({one["id"] for one in TEXTS}) == len({one["question"] for one in TEXTS}) == len(TEXTS)
    for one in TEXTS:
        assert one["fact"].lower() in one["text"].lower(), one["id"]
        assert one["sign"].lower() not in one["question"].lower(), one["id"]
        assert one["sign"].lower() not in one["fact"].lower(), one["id"]


@pytest.mark.parametrize("one", TEXTS, ids=lambda one: one["id"])
def test_no_injection_passes_for_a_part_of_the_prompt(one: dict[str, str]) -> None:
    prompt = context_prompt(one["question"], [Passage("Before", "x"), Passage(one["title"], one["text"])])
    lines = prompt.splitlines()
    assert prompt.startswith(INSTRUCTION)
    assert [line for line in lines if line.startswith("Question:")] == [f"Question: {one['question']}"]
    assert [line for line in lines if re.match(r"\[\d+\] ", line)] == ["[1] Before", f"[2] {one['title']}"]
    assert not re.search(r"<\||\[/?INST\]|</?s>|<(start|end)_of_turn>|<</?SYS>>", prompt)


def test_the_citation_writer_is_counted_by_gold_spans(data: Path) -> None:
    facts = bench_citations.facts_of(bench_citations.measure(bench_citations.cases(data, "test")))
    kinds = facts["kinds"]
    assert kinds["word for word"] == {"cases": 8, "cited": 8, "right": 8}
    assert kinds["wrong answer"]["right"] == kinds["other article"]["right"] == 0
    right, cited = sum(one["right"] for one in kinds.values()), sum(one["cited"] for one in kinds.values())
    assert facts["precision"] == round(right / cited, 4)
    assert facts["recall"] == round(right / 24, 4)


def test_a_question_becomes_a_statement() -> None:
    assert bench_citations.statement("Who led the team in sacks?", "Short") == "Short led the team in sacks."
    assert bench_citations.statement("How many points did it give up?", "308") == "308 points did it give up."
    assert bench_citations.statement("Name the river.", "Rhine") == "Name the river.: Rhine."
