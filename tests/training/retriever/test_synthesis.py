"""Questions of a model: parsed, without duplicates, found again, and never asked for twice."""

import threading
from pathlib import Path

import pytest

from training.retriever.data import Passage
from training.retriever.synthesis import in_turn, questions_in, synthesise

PASSAGES = [Passage(f"p{n}", f"d{n // 2}", f"Facts about topic number {n}.") for n in range(40)]


class Writer:
    """Writes one good question for each passage, and one that is the same for all."""

    def __init__(self, fail_after: int = 10**9):
        self.prompts: list[str] = []
        self._fail_after, self._lock = fail_after, threading.Lock()

    def __call__(self, prompt: str) -> str:
        with self._lock:
            self.prompts.append(prompt)
            if len(self.prompts) > self._fail_after:
                raise RuntimeError("killed")
        number = prompt.rpartition("number ")[2].rstrip(".")
        return (
            f"1. What is to be known of topic {number} and its {number} parts?\n2. What is said about everything?"
        )


def finds(question: str, k: int) -> list[str]:
    """The right document for even topics, another one for odd ones."""
    words = [word for word in question.split() if word.isdigit()]
    if not words:
        return ["d0"]
    number = int(words[0])
    return [f"d{number // 2}" if number % 2 == 0 else "d999"][:k]


def test_what_does_not_find_its_document_again_is_left_out(tmp_path: Path) -> None:
    made = synthesise(PASSAGES, 1000, ask=Writer(), search=finds, journal=tmp_path / "journal")
    assert {min(one.documents) for one in made.questions} == {f"d{n}" for n in range(20)}
    assert len(made.questions) in (20, 21)  # and the general one, if the first document was asked about first
    assert made.asked == 40
    assert made.lost + made.duplicates + len(made.questions) == 80


def test_known_questions_are_not_written_again(tmp_path: Path) -> None:
    known = [f"what is to be known of topic {n} and its {n} parts" for n in range(0, 40, 4)]
    made = synthesise(PASSAGES, 1000, ask=Writer(), search=finds, journal=tmp_path / "journal", known=known)
    assert not {one.text.casefold().rstrip("?") for one in made.questions} & set(known)


def test_enough_is_enough(tmp_path: Path) -> None:
    writer = Writer()
    made = synthesise(PASSAGES, 3, ask=writer, search=finds, journal=tmp_path / "journal")
    assert len(made.questions) == 3
    assert len(writer.prompts) < 40


def test_a_run_that_goes_on_asks_nothing_twice(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    killed, after, whole = Writer(fail_after=13), Writer(), Writer()
    with pytest.raises(RuntimeError):
        synthesise(PASSAGES, 1000, ask=killed, search=finds, journal=journal)
    with journal.open("a") as handle:
        handle.write('{"passage": "p1", "ans')  # cut off by the kill
    answered = journal.read_text().count("\n")
    assert answered >= 8
    made = synthesise(PASSAGES, 1000, ask=after, search=finds, journal=journal)
    assert len(after.prompts) == 40 - answered
    assert made == synthesise(PASSAGES, 1000, ask=whole, search=finds, journal=tmp_path / "other")


def test_all_documents_have_their_turn() -> None:
    order = in_turn(PASSAGES, seed=3)
    assert len({one.document for one in order[:20]}) == 20
    assert sorted(one.id for one in order) == sorted(one.id for one in PASSAGES)


def test_lines_that_are_no_questions_are_none() -> None:
    answer = """Here are two questions:
    1. How long does the battery of the scanner last?
    - "Which port does the hub use?"
    What does the text say about it?
    Why?"""
    assert list(questions_in(answer)) == [
        None,
        "How long does the battery of the scanner last?",
        "Which port does the hub use?",
        None,
        None,
    ]
