"""From what was said and measured to one answer a question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from local_llm.decision.evidence import Evidence
from local_llm.decision.questions import ENOUGH_EXAMPLES, FIVE, NEEDS, NOT_NAMED, Answer, Answers, Question
from local_llm.decision.told import Told


@dataclass(frozen=True)
class Contradiction:
    """What was told holds; what was measured says otherwise."""

    question: Question
    told: bool
    figure: str


@dataclass(frozen=True)
class Settled:
    """`known`: what has an answer. `missing`: what was neither told nor measured."""

    known: Mapping[Question, Answer]
    missing: tuple[Question, ...]
    contradictions: tuple[Contradiction, ...]

    def answers(self) -> Answers:
        """Call it when nothing is missing."""
        return Answers(**{str(question): answer for question, answer in self.known.items()})


def settle(told: Told, evidence: Sequence[Evidence]) -> Settled:
    """A yes that was told comes first, then a need, then a no that was told, then what was measured."""
    measured = {one.question: one for one in evidence if one.answer is not None}
    known: dict[Question, Answer] = {"behaviour": _by_needs(told, "behaviour") or NOT_NAMED}
    for question in FIVE:
        answer = _answer(told, question, measured.get(question))
        if answer is not None:
            known[question] = answer
    missing = tuple(question for question in FIVE if question not in known)
    return Settled(known, missing, _contradictions(told, measured))


def _answer(told: Told, question: Question, measured: Evidence | None) -> Answer | None:
    said = _said(told, question)
    needed = _by_needs(told, question)
    if said or (said is not None and needed is None):
        return Answer(said, "told", _as_told(told, question))
    if needed is not None:
        return needed
    if measured is None or measured.answer is None:
        return None
    return Answer(measured.answer, "measured", measured.figure)


def _said(told: Told, question: Question) -> bool | None:
    if question == "examples":
        return None if told.examples is None else told.examples >= ENOUGH_EXAMPLES
    said: bool | None = getattr(told, question)
    return said


def _as_told(told: Told, question: Question) -> str:
    return f"{told.examples:,} examples" if question == "examples" else "told"


def _by_needs(told: Told, question: Question) -> Answer | None:
    named = [words for name, (answers, words) in NEEDS.items() if answers == question and getattr(told, name)]
    return Answer(True, "input", f"counts as yes: {' and '.join(named)}") if named else None


def _contradictions(told: Told, measured: Mapping[Question, Evidence]) -> tuple[Contradiction, ...]:
    found = []
    for question, evidence in measured.items():
        said = _said(told, question)
        if said is not None and said != evidence.answer:
            found.append(Contradiction(question, said, evidence.figure))
    return tuple(found)
