"""Which passages stand in a row: the one that holds the answer, and near misses that our own retriever finds.

Distractors drawn by chance teach little: what a served model must not be misled by is what the search brings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from index.interface import Hit, Index, Ranking
from local_llm.answer_measures import containment
from local_llm.near_duplicates import NearDuplicates
from local_llm.permissions import Caller
from local_llm.questions import Question

# So many are asked for, for each passage of a row: some are gold, or hold the answer.
SPARE = 4
# And so many where those do not suffice, by vectors alone: that costs no reranker's time.
MOST = 1000
BY_VECTORS = Ranking()


@dataclass(frozen=True)
class Passages:
    """What was found for a question. `gold` None: no passage of its documents. `near_misses`: the nearest first;
    `passed_over` of those were nearly equal to another."""

    gold: Hit | None
    holds_answer: bool
    near_misses: tuple[Hit, ...]
    passed_over: int


def find_passages(index: Index, caller: Caller, collection: str, question: Question, wanted: int) -> Passages:
    """The gold passage is the best of those that hold the answer, else the best of the question's documents.
    A near miss is of another document and does not hold the answer.

    Raises: NotFoundError, InvalidInputError.
    """
    hits = index.search(caller, collection, question.text, SPARE * wanted)
    gold = _gold(hits, question)
    holds = gold is not None and _holds_answer(gold, question)
    near, passed_over = _near_misses(hits, question, gold, wanted)
    if holds and len(near) == wanted:
        return Passages(gold, holds, near, passed_over)
    more = index.search(caller, collection, question.text, MOST, ranking=BY_VECTORS)
    better = _gold(more, question)
    if gold is None or (better is not None and not holds and _holds_answer(better, question)):
        gold = better
    near, passed_over = _near_misses([*hits, *more], question, gold, wanted)
    return Passages(gold, gold is not None and _holds_answer(gold, question), near, passed_over)


def _gold(hits: Sequence[Hit], question: Question) -> Hit | None:
    own = [hit for hit in hits if hit.document_id in question.documents]
    return next((hit for hit in own if _holds_answer(hit, question)), own[0] if own else None)


def _near_misses(
    hits: Sequence[Hit], question: Question, gold: Hit | None, wanted: int
) -> tuple[tuple[Hit, ...], int]:
    """Those that are wanted, and how many were passed over because another says the same in the same words."""
    known = NearDuplicates([] if gold is None else [gold.text])
    near: list[Hit] = []
    passed_over = 0
    for hit in _wrong(hits, question):
        if len(near) == wanted:
            break
        if known.of(hit.text):
            passed_over += 1
            continue
        known.add(hit.text)
        near.append(hit)
    return tuple(near), passed_over


def _wrong(hits: Sequence[Hit], question: Question) -> Iterator[Hit]:
    """Each passage that does not answer the question, once."""
    seen: set[tuple[str, int, int]] = set()
    for hit in hits:
        place = hit.document_id, hit.start, hit.end
        if place not in seen and hit.document_id not in question.documents and not _holds_answer(hit, question):
            seen.add(place)
            yield hit


def _holds_answer(hit: Hit, question: Question) -> bool:
    return question.answer is not None and bool(containment(hit.text, question.answer))
