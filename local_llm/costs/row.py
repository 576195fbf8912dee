"""A row of the comparison, and what is asked of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TypeVar

from local_llm.costs.evaluations import AnswerEvidence
from local_llm.costs.evidence import Evidence
from local_llm.costs.figure import Figure, exactly, refuse_negative
from local_llm.costs.local import Month, Traffic
from local_llm.profiles import RETRIEVING, Strategy


@dataclass(frozen=True)
class Asked:
    """`traffic.context_tokens` are the passages of a retrieving strategy; others do not pay for them.

    `documents_per_update` None: as many as the newest measured change had; without one an update indexes all
    documents again, an upper bound.
    """

    traffic: Traffic
    queries_per_month: float
    updates_per_month: float = 0.0
    documents_per_update: int | None = None

    def __post_init__(self) -> None:
        refuse_negative(
            queries_per_month=self.queries_per_month,
            updates_per_month=self.updates_per_month,
            documents_per_update=self.documents_per_update,
        )

    def traffic_of(self, strategy: Strategy) -> Traffic:
        if strategy in RETRIEVING:
            return self.traffic
        bare = self.traffic.input_tokens
        return replace(self.traffic, context_tokens=0.0, cached_tokens=min(self.traffic.cached_tokens, bare))

    def documents(self, evidence: Evidence) -> int | None:
        """That an update indexes again; None: all."""
        if self.documents_per_update is None and evidence.reindexing is not None:
            return evidence.reindexing.documents
        return self.documents_per_update

    def share_of_documents(self, evidence: Evidence) -> float:
        documents = self.documents(evidence)
        if documents is None or evidence.indexing is None:
            return 1.0
        return documents / evidence.indexing.documents


@dataclass(frozen=True)
class Row:
    """None: not known, and `missing` says why and what to run or set."""

    strategy: Strategy
    where: str
    set_up_usd: Figure | None
    usd_per_query: Figure | None
    latency_seconds: Figure | None
    accepted_rate: Figure | None
    update_usd: Figure | None
    data_needed: str
    cites: bool
    usd_per_month: Figure | None
    month: Month | None
    missing: tuple["Missing", ...]


@dataclass(frozen=True)
class Unknown:
    """In the place of a figure: why there is none, and what to run or set."""

    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Missing:
    factor: str
    reason: str


T = TypeVar("T")


@dataclass
class Told:
    """Takes what came out as a figure or as unknown, and keeps the reasons."""

    _missing: list[Missing] = field(default_factory=list)

    @property
    def missing(self) -> tuple[Missing, ...]:
        return tuple(self._missing)

    def note(self, factor: str, reason: str) -> None:
        self._missing.append(Missing(factor, reason))

    def noting(self, factor: str, found: T | Unknown) -> T | None:
        if isinstance(found, Unknown):
            for reason in found.reasons:
                self.note(factor, reason)
            return None
        return found

    def latency(self, evaluated: AnswerEvidence | None, otherwise: str) -> Figure | None:
        """Median; the 95th percentile is the high end."""
        if evaluated is None or evaluated.latency_p50_seconds is None:
            self.note("latency", otherwise)
            return None
        p50 = evaluated.latency_p50_seconds
        return Figure(p50, p50, evaluated.latency_p95_seconds or p50, "measured", evaluated.run_id)

    def accepted(self, evaluated: AnswerEvidence | None, otherwise: str) -> Figure | None:
        """The share of answers that were accepted."""
        if evaluated is None or evaluated.accepted_rate is None:
            self.note("accepted answers", otherwise)
            return None
        if evaluated.supposed is not None:
            return exactly(evaluated.accepted_rate, "assumed", f"{evaluated.run_id}: {evaluated.supposed}")
        return exactly(evaluated.accepted_rate, "measured", evaluated.run_id)


def whole(parts: Sequence[Figure | Unknown]) -> Figure | Unknown:
    """The sum, or why there is none."""
    reasons = [reason for part in parts if isinstance(part, Unknown) for reason in part.reasons]
    if reasons:
        return Unknown(tuple(reasons))
    figures = [part for part in parts if isinstance(part, Figure)]
    return reduce(Figure.plus, figures) if figures else nothing("nothing to make")


def nothing(why: str) -> Figure:
    return exactly(0.0, "measured", why)


def needed_data(strategy: Strategy, evidence: Evidence) -> str:
    """What the measured runs took; else the article's least."""
    tuning = "100+ examples (article)"
    if evidence.training is not None:
        tuning = f"{evidence.training.examples:,} examples ({evidence.training.run_id})"
    reading = "1+ document (article)"
    if evidence.indexing is not None:
        reading = f"{evidence.indexing.documents:,} documents ({evidence.indexing.run_id})"
    needed: dict[Strategy, str] = {
        "base": "none",
        "fine_tuned": tuning,
        "rag": reading,
        "hybrid": f"{tuning}, {reading}",
    }
    return needed[strategy]
