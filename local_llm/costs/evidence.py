"""What was measured, read for cost from the ledger, on the hardware that is asked about.

Figures of other hardware are never taken: a processor's say nothing of a GPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from local_llm import ledger
from local_llm.costs.evaluations import LOCAL, AnswerEvidence, gpus_of, hosted_answers, local_answers
from local_llm.costs.prices import GPUPrice
from local_llm.costs.throughput import Throughput
from local_llm.costs.units import SECONDS_PER_HOUR
from local_llm.costs.updates import MeasuredReindexing, MeasuredRetraining, reindexing_of, retraining_of
from local_llm.hardware import Hardware
from local_llm.ledger import LedgerKind
from local_llm.profiles import Strategy
from local_llm.state import LedgerEntry, State


@dataclass(frozen=True)
class Whereabouts:
    """The hardware that is asked about. `cores` None: of a GPU the processor beside it does not matter."""

    label: str
    device: str
    names: tuple[str, ...]
    cores: int | None = None

    @classmethod
    def here(cls, hardware: Hardware) -> "Whereabouts":
        cores = None if hardware.device == "cuda" else hardware.cores
        return cls(str(hardware), hardware.device, (hardware.name,), cores)

    @classmethod
    def of(cls, price: GPUPrice) -> "Whereabouts":
        return cls(price.gpu, "cuda", (price.gpu, *price.driver_names))

    def holds(self, entry: LedgerEntry) -> bool:
        """Whether the figures are its own: what a processor did beside a GPU is not the GPU's."""
        hardware = entry.hardware
        same_cores = self.cores is None or hardware.get("cores") == self.cores
        same = hardware.get("device") == self.device and hardware.get("name") in self.names and same_cores
        return same and entry.facts.get("device", self.device) == self.device


@dataclass(frozen=True)
class MeasuredThroughput:
    throughput: Throughput
    run_id: str
    model: str
    is_adapter: bool


@dataclass(frozen=True)
class MeasuredTraining:
    hours: float
    tokens: int
    examples: int
    run_id: str


@dataclass(frozen=True)
class MeasuredIndexing:
    """Reading, encoding and storing documents."""

    hours: float
    documents: int
    tokens: int
    run_id: str


@dataclass(frozen=True)
class Spent:
    """All that the ledger holds of one kind of work on this hardware."""

    work: str
    runs: int
    hours: float


@dataclass(frozen=True)
class Evidence:
    """None and empty: not measured on this hardware. Answers: the newest first; `elsewhere`: of other hardware,
    shown and never taken."""

    whereabouts: Whereabouts
    throughputs: tuple[MeasuredThroughput, ...] = ()
    training: MeasuredTraining | None = None
    retraining: MeasuredRetraining | None = None
    indexing: MeasuredIndexing | None = None
    reindexing: MeasuredReindexing | None = None
    answers: tuple[AnswerEvidence, ...] = ()
    elsewhere: tuple[AnswerEvidence, ...] = ()
    spent: tuple[Spent, ...] = ()

    def throughput(self, *, adapter: bool) -> MeasuredThroughput | None:
        """The newest of a base or of an adapter."""
        return next((one for one in self.throughputs if one.is_adapter == adapter), None)

    def answer(self, strategy: Strategy, where: str) -> AnswerEvidence | None:
        """The newest."""
        return next((one for one in self.answers if (one.strategy, one.where) == (strategy, where)), None)

    @property
    def newest_answers(self) -> tuple[AnswerEvidence, ...]:
        """One of each strategy and place."""
        found: dict[tuple[Strategy, str], AnswerEvidence] = {}
        for one in self.answers:
            found.setdefault((one.strategy, one.where), one)
        return tuple(found.values())

    def compared(self, strategy: Strategy, where: str) -> tuple[AnswerEvidence, AnswerEvidence] | None:
        """The newest of here and there that were asked the same; None: there is no such pair.

        How a hosted model came to its answers need not be ours: its own strategy is taken where there are several.
        """
        ours = [one for one in self.answers if (one.strategy, one.where) == (strategy, LOCAL)]
        theirs = [one for one in self.answers if one.where == where]
        theirs.sort(key=lambda one: one.strategy != strategy)
        return next(((one, other) for one in ours for other in theirs if one.is_comparable(other)), None)


def gather(
    state: State,
    project_id: str,
    whereabouts: Whereabouts,
    *,
    gpus: int = 1,
    answers: Sequence[AnswerEvidence] = (),
) -> Evidence:
    """`gpus`: what engines did counts only if that many worked for the engine. `answers` go before the ledger's
    own."""

    def there(kind: LedgerKind) -> list[LedgerEntry]:
        return [entry for entry in ledger.entries(state, project_id, kind) if whereabouts.holds(entry)]

    trainings, indexings = there("training"), there("ingestion")
    throughputs = [entry for entry in there("throughput") if entry.facts["gpus"] == gpus]
    freshness = there("freshness")
    here, elsewhere, hosted = _answers(ledger.entries(state, project_id, "evaluation"), whereabouts, gpus)
    return Evidence(
        whereabouts,
        throughputs=tuple(_throughput(entry) for entry in throughputs),
        training=_newest(trainings, _training),
        retraining=_first(_since(freshness, trainings), retraining_of),
        indexing=_largest(indexings),
        reindexing=_first(freshness, reindexing_of),
        answers=(*answers, *here, *hosted),
        elsewhere=elsewhere,
        spent=_all_spent(there),
    )


T = TypeVar("T")


def _newest(entries: list[LedgerEntry], read: Callable[[LedgerEntry], T]) -> T | None:
    return read(entries[0]) if entries else None


def _first(entries: list[LedgerEntry], read: Callable[[LedgerEntry], T | None]) -> T | None:
    """Of the newest entry that says something of it."""
    return next((found for entry in entries if (found := read(entry)) is not None), None)


def _since(entries: list[LedgerEntry], trainings: list[LedgerEntry]) -> list[LedgerEntry]:
    """Without those before the newest training: what is trained today may be far more."""
    return [entry for entry in entries if not trainings or entry.created_at >= trainings[0].created_at]


def _largest(entries: list[LedgerEntry]) -> MeasuredIndexing | None:
    """Of several the one of most documents: the newest is often that of a single one that was changed."""
    filled = [entry for entry in entries if entry.facts["documents"] > 0]
    return _indexing(max(filled, key=lambda entry: entry.facts["documents"])) if filled else None


def _answers(
    entries: list[LedgerEntry], whereabouts: Whereabouts, gpus: int
) -> tuple[tuple[AnswerEvidence, ...], ...]:
    """Of the hardware asked about, of other hardware (the newest of each strategy that has none here), and hosted.

    Hosted models answer the same whatever machine asks them.
    """
    here, elsewhere, hosted = list[AnswerEvidence](), dict[Strategy, AnswerEvidence](), list[AnswerEvidence]()
    for entry in entries:
        hosted += hosted_answers(entry)
        if whereabouts.holds(entry) and gpus_of(entry) == gpus:
            here += local_answers(entry)
        else:
            for one in local_answers(entry):
                elsewhere.setdefault(one.strategy, one)
    known = {one.strategy for one in here}
    return tuple(here), tuple(one for one in elsewhere.values() if one.strategy not in known), tuple(hosted)


def _all_spent(there: Callable[[LedgerKind], list[LedgerEntry]]) -> tuple[Spent, ...]:
    """Work that the ledger has nothing of is left out."""
    served = there("serving")
    busy = _hours(served, "busy_seconds")
    encoded = [*there("ingestion"), *there("encoding"), *there("reembed"), *there("index_build")]
    works = (
        ("training of adapters", there("training"), None),
        ("training of retrievers", there("retriever"), None),
        ("encoding and index building", encoded, None),
        ("serving, answering", served, busy),
        ("serving, idle", served, _hours(served) - busy),
    )
    return tuple(
        Spent(work, len(found), _hours(found) if hours is None else hours) for work, found, hours in works if found
    )


def _hours(entries: list[LedgerEntry], name: str = "seconds") -> float:
    return sum(entry.facts.get(name, 0.0) for entry in entries) / SECONDS_PER_HOUR


def _throughput(entry: LedgerEntry) -> MeasuredThroughput:
    facts = entry.facts
    made = Throughput(facts["seconds_per_prefill_token"], facts["seconds_per_decode_token"])
    return MeasuredThroughput(made, entry.id, facts["model"], facts["is_adapter"])


def _training(entry: LedgerEntry) -> MeasuredTraining:
    facts = entry.facts
    return MeasuredTraining(facts["seconds"] / SECONDS_PER_HOUR, facts["tokens"], facts["examples"], entry.id)


def _indexing(entry: LedgerEntry) -> MeasuredIndexing:
    facts = entry.facts
    return MeasuredIndexing(facts["seconds"] / SECONDS_PER_HOUR, facts["documents"], facts["tokens"], entry.id)
