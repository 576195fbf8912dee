"""By document, never by pair: what is measured was not trained in any form."""

import random

import pytest

from local_llm.errors import InvalidInputError
from local_llm.questions import Question
from training.retriever.split import Split, components, split

SHARES = {"synthesised": 0, "dev_share": 0.3, "test_share": 0.2, "seed": 7}


def some_questions(count: int = 400) -> list[Question]:
    draw = random.Random(4)
    names = [f"d{number}" for number in range(count * 2)]
    found = [
        Question(f"q{n} {draw.random()}", frozenset(draw.sample(names, draw.randint(1, 2)))) for n in range(count)
    ]
    found[9] = Question("how do I pair the scanner with the hub at the desk", frozenset(["only-9"]))
    found[-9] = Question("How do I pair the scanner with the hub at the desk?", frozenset(["only-last"]))
    return found


def documents(questions: list[Question], numbers: tuple[int, ...]) -> set[str]:
    return {name for number in numbers for name in questions[number].documents}


def side_of(found: Split, number: int) -> str:
    return next(side for side in ("train", "dev", "test") if number in getattr(found, side))


@pytest.mark.parametrize("seed", range(5))
def test_no_document_is_on_two_sides(seed: int) -> None:
    questions = some_questions()
    found = split(questions, **{**SHARES, "seed": seed})
    sides = [documents(questions, one) for one in (found.train, found.dev, found.test)]
    assert all(sides)
    assert sum(map(len, sides)) == len(set().union(*sides))
    assert sorted((*found.train, *found.dev, *found.test)) == list(range(400))
    assert side_of(found, 9) == side_of(found, 391)  # near duplicates, of different documents


def test_components_join_over_documents_and_likeness() -> None:
    questions = [
        Question("alpha beta gamma delta", frozenset("a")),
        Question("something else entirely", frozenset("b")),
        Question("a bridge between", frozenset("ab")),
        Question("Alpha, beta gamma delta!", frozenset("c")),
        Question("alone here", frozenset("d")),
    ]
    assert components(questions) == [0, 0, 0, 0, 4]


def test_a_side_depends_on_the_group_and_the_seed_only() -> None:
    questions = some_questions()
    before = split(questions, **SHARES)
    after = split([*questions, Question("quite another one", frozenset(["new"]))], **SHARES)
    assert [side_of(before, number) for number in range(400)] == [side_of(after, number) for number in range(400)]
    assert split(questions, **{**SHARES, "seed": 8}).dev != before.dev


def test_written_questions_are_trained_only_and_not_about_what_is_measured() -> None:
    asked = some_questions(200)
    written = [Question(f"written {n} about {min(one.documents)}", one.documents) for n, one in enumerate(asked)]
    found = split([*asked, *written], **{**SHARES, "synthesised": 200})
    assert max((*found.dev, *found.test)) < 200
    assert found.dropped == len(found.dev) + len(found.test)
    assert any(number >= 200 for number in found.train)


def test_questions_that_all_hang_together_cannot_be_split() -> None:
    questions = [Question(f"question {n}", frozenset(["same", f"d{n}"])) for n in range(120)]
    with pytest.raises(InvalidInputError, match="in 1 groups"):
        split(questions, **SHARES)
