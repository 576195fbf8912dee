"""What each part of ranking is worth on the user's own questions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from time import perf_counter

from index.interface import Index, Ranking, Report, silent
from local_llm.bootstrap import Interval
from local_llm.permissions import Caller
from local_llm.questions import Question
from local_llm.relevance import CUT, Measures, differences, means, measure

# A document is as good as its best passage, and the documents of so many passages are ranked.
PASSAGES = 30
PARTS = ("lexical", "reranker", "merged")
DECISIVE = "ndcg_10"

ALL_OFF = Ranking()


@dataclass(frozen=True)
class Measured:
    """One way to rank, over all questions."""

    ranking: Ranking
    name: str
    means: Measures
    median_milliseconds: float  # of a search, as its caller sees it
    to_dense: dict[str, Interval] | None  # by measure; None for what nothing is on of


@dataclass(frozen=True)
class Effect:
    """What a part changes where everything else stays: with it minus without it, by measure."""

    part: str
    beside: str  # what else was on
    difference: dict[str, Interval]

    @property
    def verdict(self) -> str:
        return verdict(self.difference[DECISIVE])


@dataclass(frozen=True)
class Evaluation:
    questions: int
    rankings: tuple[Measured, ...]
    effects: tuple[Effect, ...]
    best: Ranking  # each part of it is certainly worth it


def evaluate(
    index: Index,
    caller: Caller,
    collection: str,
    questions: Sequence[Question],
    *,
    reranker: str | None = None,
    report: Report = silent,
) -> Evaluation:
    """Asks every question once in every way to rank; changes nothing. Progress counts searches."""
    rankings = rankings_of(reranker)
    measures: dict[Ranking, list[Measures]] = {}
    medians: dict[Ranking, float] = {}
    for at, ranking in enumerate(rankings):
        found: list[Measures] = []
        seconds: list[float] = []
        for number, question in enumerate(questions):
            report(at * len(questions) + number, len(rankings) * len(questions), name_of(ranking))
            started = perf_counter()
            hits = index.search(caller, collection, question.text, PASSAGES, ranking=ranking)
            seconds.append(perf_counter() - started)
            documents = list(dict.fromkeys(hit.document_id for hit in hits))[:CUT]
            found.append(measure(documents, question.documents))
        measures[ranking] = found
        medians[ranking] = 1000 * sorted(seconds)[len(seconds) // 2]
    return _summed_up(measures, medians)


def rankings_of(reranker: str | None) -> list[Ranking]:
    """All on-and-off combinations of the parts, all off first."""
    rerankers = (None,) if reranker is None else (None, reranker)
    return [Ranking(*parts) for parts in product((False, True), rerankers, (False, True))]


def name_of(ranking: Ranking) -> str:
    return " + ".join(["dense", *(part for part in PARTS if getattr(ranking, part))])


def verdict(difference: Interval) -> str:
    """Sure at 95 %, for one comparison."""
    if difference.low > 0:
        return "raises"
    return "lowers" if difference.high < 0 else "makes no certain difference"


def best_of(measures: Mapping[Ranking, Sequence[Measures]]) -> Ranking:
    """From all off, part after part as long as one makes nDCG@10 certainly higher, the best of them each time."""
    chosen = ALL_OFF
    while better := [one for one in _with_one_more(chosen, measures) if _gain(one, chosen, measures).low > 0]:
        chosen = max(better, key=lambda one: means(measures[one]).ndcg_10)
    return chosen


def _with_one_more(ranking: Ranking, among: Iterable[Ranking]) -> list[Ranking]:
    return [one for one in among if any(ranking == without for _, without in _withouts(one))]


def _withouts(ranking: Ranking) -> list[tuple[str, Ranking]]:
    """Each part that is on, and the ranking with that one off."""
    on = [part for part in PARTS if getattr(ranking, part)]
    return [(part, replace(ranking, **{part: getattr(ALL_OFF, part)})) for part in on]


def _gain(one: Ranking, other: Ranking, measures: Mapping[Ranking, Sequence[Measures]]) -> Interval:
    return differences(measures[one], measures[other])[DECISIVE]


def _summed_up(measures: dict[Ranking, list[Measures]], medians: dict[Ranking, float]) -> Evaluation:
    dense = measures[ALL_OFF]
    rankings = tuple(
        Measured(
            ranking,
            name_of(ranking),
            means(found),
            medians[ranking],
            None if ranking == ALL_OFF else differences(found, dense),
        )
        for ranking, found in measures.items()
    )
    return Evaluation(len(dense), rankings, tuple(_effects(measures)), best_of(measures))


def _effects(measures: Mapping[Ranking, Sequence[Measures]]) -> list[Effect]:
    return [
        Effect(part, name_of(without), differences(measures[ranking], measures[without]))
        for ranking in measures
        for part, without in _withouts(ranking)
    ]
