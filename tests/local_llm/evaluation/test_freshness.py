"""Which strategy answers a changed fact, after what: the protocol over a world of three lines."""

from dataclasses import replace

import pytest

from local_llm.errors import InvalidInputError, UnavailableError
from local_llm.evaluation.answers import Answer
from local_llm.evaluation.freshness import Fact, Strategies, Work, is_right, measure
from local_llm.evaluation.targets import Target

FACT = Fact("How long?", "four hours", "three hours")
TARGETS = (
    Target("base", "base"),
    Target("tuned", "fine_tuned", model="old", adapter="ft:old"),
    Target("rag", "rag"),
    Target("hybrid", "hybrid", adapter="ft:old"),
)


class World:
    """A document, and models that say it, what they were trained on, or nothing."""

    def __init__(self) -> None:
        self.document = FACT.old
        self.asked: list[str] = []

    def ask(self, target: Target, _question: str) -> Answer:
        self.asked.append(target.name)
        if target.strategy in ("rag", "hybrid"):
            return Answer("q", f"It takes {self.document} [1].")
        if target.model == "new":
            return Answer("q", "It takes three hours.")
        return Answer("q", f"It takes {FACT.old}." if target.adapter else "A while.")

    def reindex(self) -> Work:
        self.document = FACT.new
        return Work(9.0, {"passages": 1})

    def retrain(self, target: Target) -> tuple[Target, Work]:
        return replace(target, model="new"), Work(360.0, {"trained_tokens": 5})

    def strategies(self, *, trains: bool = False, known: Work | None = None) -> Strategies:
        return Strategies(
            TARGETS, self.ask, self.reindex, self.retrain if trains else None, trained_before=lambda _target: known
        )


def test_what_retrieves_knows_it_at_once_and_what_is_trained_does_not() -> None:
    base, tuned, rag, hybrid = measure(World().strategies(), FACT, 10.0)
    assert (rag.way, rag.measured, hybrid.way, hybrid.measured) == ("re-index", True, "re-index", True)
    # 9 s of work and next to none of asking, at $10 an hour
    assert rag.seconds == pytest.approx(9.0, abs=0.5)
    assert rag.usd == pytest.approx(0.025, abs=0.002)
    assert (tuned.way, tuned.measured, tuned.seconds, tuned.usd) == ("retrain", False, None, None)
    assert (base.way, base.told) == (None, "never: it reads no documents and is not trained")
    assert rag.before == "It takes four hours [1]."


def test_a_retrain_is_measured_where_one_is_made() -> None:
    tuned = measure(World().strategies(trains=True), FACT, 10.0)[1]
    assert (tuned.way, tuned.measured, tuned.after_retrain) == ("retrain", True, "It takes three hours.")
    assert tuned.seconds == pytest.approx(360.0, abs=0.5)
    assert tuned.usd == pytest.approx(1.0, abs=0.01)


def test_without_one_the_last_training_is_told_and_not_called_measured() -> None:
    tuned = measure(World().strategies(known=Work(360.0)), FACT, None)[1]
    assert (tuned.seconds, tuned.measured, tuned.usd) == (360.0, False, None)
    assert tuned.told == "needs a retrain; its last one took this"


def test_an_answer_with_both_facts_is_not_right() -> None:
    assert is_right("It takes three hours [2].", FACT)
    assert not is_right("It took four hours, now three hours.", FACT)
    with pytest.raises(InvalidInputError, match="cannot be told apart"):
        measure(World().strategies(), Fact("How long?", "four hours", "twenty four hours"), None)


def test_nothing_is_changed_if_somebody_is_silent_before() -> None:
    world = World()
    silent = replace(world.strategies(), ask=lambda _target, _text: Answer("q", error="503"))
    with pytest.raises(UnavailableError, match="gave no answer before the change: 503"):
        measure(silent, FACT, None)
    assert world.document == FACT.old
