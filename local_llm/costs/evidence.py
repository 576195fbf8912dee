"""What was measured, read for cost: from the ledger, on the hardware that is asked about, and from evaluations.

Figures of other hardware are never taken: a processor's say nothing of a GPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from local_llm import ledger
from local_llm.costs.prices import GPUPrice
from local_llm.costs.throughput import Throughput
from local_llm.costs.units import SECONDS_PER_HOUR
from local_llm.errors import InvalidInputError
from local_llm.hardware import Hardware
from local_llm.profiles import Strategy
from local_llm.section import Section
from local_llm.state import LedgerEntry, State

LOCAL = "local"


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

    def holds(self, hardware: dict[str, Any]) -> bool:
        same_cores = self.cores is None or hardware.get("cores") == self.cores
        return hardware.get("device") == self.device and hardware.get("name") in self.names and same_cores


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
    """All that the ledger holds of one kind of work on this hardware. `runs`: entries of the ledger; of serving
    one an hour."""

    work: str
    runs: int
    hours: float


class AnswerEvidence(Section):
    """What an evaluation found of one strategy, here (`where` is `local`) or of a hosted model (its name)."""

    strategy: Strategy
    where: str = LOCAL
    accepted_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    latency_p50_seconds: Annotated[float, Field(gt=0)] | None = None
    latency_p95_seconds: Annotated[float, Field(gt=0)] | None = None
    run_id: str = Field(min_length=1)


@dataclass(frozen=True)
class Evidence:
    """None and empty: not measured on this hardware."""

    whereabouts: Whereabouts
    throughputs: tuple[MeasuredThroughput, ...] = ()
    training: MeasuredTraining | None = None
    indexing: MeasuredIndexing | None = None
    answers: tuple[AnswerEvidence, ...] = ()
    spent: tuple[Spent, ...] = ()

    def throughput(self, *, adapter: bool) -> MeasuredThroughput | None:
        """The newest of a base or of an adapter."""
        return next((one for one in self.throughputs if one.is_adapter == adapter), None)

    def answer(self, strategy: Strategy, where: str) -> AnswerEvidence | None:
        return next((one for one in self.answers if (one.strategy, one.where) == (strategy, where)), None)


def gather(
    state: State,
    project_id: str,
    whereabouts: Whereabouts,
    *,
    gpus: int = 1,
    answers: Sequence[AnswerEvidence] = (),
    since: int = 0,
) -> Evidence:
    """`gpus`: throughput counts only if that many held the model together."""

    def there(kind: ledger.LedgerKind) -> list[LedgerEntry]:
        found = ledger.entries(state, project_id, kind, since=since)
        return [entry for entry in found if whereabouts.holds(entry.hardware)]

    trainings, indexings = there("training"), there("ingestion")
    throughputs = [entry for entry in there("throughput") if entry.facts["gpus"] == gpus]
    return Evidence(
        whereabouts,
        throughputs=tuple(_throughput(entry) for entry in throughputs),
        training=_newest(trainings, _training),
        indexing=_newest([entry for entry in indexings if entry.facts["documents"] > 0], _indexing),
        answers=tuple(answers),
        spent=_spent(trainings, indexings, there),
    )


def read_answers(path: Path) -> tuple[AnswerEvidence, ...]:
    """A JSON list of what evaluations found.

    Raises: InvalidInputError with everything that is wrong.
    """
    try:
        return TypeAdapter(tuple[AnswerEvidence, ...]).validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}", hint="check --evidence") from None
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors())
        raise InvalidInputError(f"{path}: {reasons}", hint="docs/cost.md shows a row") from None


def _spent(
    trainings: list[LedgerEntry],
    indexings: list[LedgerEntry],
    there: Callable[[ledger.LedgerKind], list[LedgerEntry]],
) -> tuple[Spent, ...]:
    """Work that the ledger has nothing of is left out."""
    served = there("serving")
    encoded = [*indexings, *there("reembed"), *there("index_build")]
    seconds = {
        "training": (trainings, _seconds(trainings)),
        "encoding and index building": (encoded, _seconds(encoded)),
        "serving, answering": (served, _seconds(served, "busy_seconds")),
        "serving, idle": (served, _seconds(served) - _seconds(served, "busy_seconds")),
    }
    return tuple(
        Spent(work, len(found), took / SECONDS_PER_HOUR) for work, (found, took) in seconds.items() if found
    )


def _seconds(found: list[LedgerEntry], name: str = "seconds") -> float:
    return sum(entry.facts.get(name, 0.0) for entry in found)


T = TypeVar("T")


def _newest(entries: list[LedgerEntry], read: Callable[[LedgerEntry], T]) -> T | None:
    return read(entries[0]) if entries else None


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
