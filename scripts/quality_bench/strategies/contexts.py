"""Passages for questions that are asked with a context of our making, found by the product's own search."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from index.access import open_index
from index.interface import Hit
from local_llm.answer_measures import containment
from quality_bench.lines import Journal
from quality_bench.strategies.box import Box
from quality_bench.strategies.data import Question, name_of
from quality_bench.strategies.settings import PASSAGES

DEPTH = 24  # passages looked through for three of other documents


@dataclass(frozen=True)
class Passage:
    """As much of a hit as a prompt needs."""

    document: str
    title: str
    heading: str
    text: str


@dataclass(frozen=True)
class Contexts:
    """`served`: what a profile of k passages gets; `answerable`: one of them is of the gold document and holds the
    answer. The others as in settings.Context; `gold` is empty where the search finds no such passage at all."""

    served: tuple[Passage, ...]
    gold: tuple[Passage, ...]
    absent: tuple[Passage, ...]
    answerable: bool


def retrieve(box: Box, collection: str, questions: Sequence[Question], kept: Journal) -> dict[str, Contexts]:
    """By question id; each is searched for once."""
    missing = [one for one in questions if kept.get(one.id) is None]
    if missing:
        with open_index(box.settings, box.state) as index:
            for one in missing:
                hits = index.search(box.caller, collection, one.text, DEPTH)
                kept.add(one.id, {"passages": [asdict(_passage(hit)) for hit in hits]})
    return {one.id: contexts(one, [Passage(**row) for row in _rows(kept, one)]) for one in questions}


def contexts(question: Question, found: Sequence[Passage]) -> Contexts:
    """`found`: best first."""
    own = name_of(question.document)
    holding = [one for one in found if one.document == own and containment(one.text, question.answer)]
    others = [one for one in found if one.document != own and not containment(one.text, question.answer)]
    gold = _with_distractors(holding[0], found, others) if holding else ()
    served = tuple(found[:PASSAGES])
    return Contexts(served, gold, tuple(others[:PASSAGES]), any(one in holding for one in served))


def _with_distractors(gold: Passage, found: Sequence[Passage], others: Sequence[Passage]) -> tuple[Passage, ...]:
    """In the order in which the search ranks them, as training and serving have it."""
    chosen = [gold, *others[: PASSAGES - 1]]
    return tuple(sorted(chosen, key=list(found).index))


def _passage(hit: Hit) -> Passage:
    return Passage(hit.document, hit.title, hit.heading, hit.text)


def _rows(kept: Journal, question: Question) -> list[dict[str, str]]:
    row = kept.get(question.id)
    assert row is not None
    return list(row["passages"])
