"""The article's table with figures of one's own: four strategies, here beside hosted models."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from local_llm.costs.evaluations import LOCAL
from local_llm.costs.evidence import Evidence
from local_llm.costs.figure import Figure, refuse_negative
from local_llm.costs.hosted import HostedOffer, hosted_row
from local_llm.costs.local import Extras, Month, Traffic, month, request_seconds
from local_llm.costs.row import Asked, Row, Told, Unknown, needed_data, nothing, whole
from local_llm.costs.throughput import Throughput
from local_llm.costs.updates import MeasuredReindexing
from local_llm.profiles import RETRIEVING, STRATEGIES, TUNED, Strategy


@dataclass(frozen=True)
class Here:
    """The machine that is compared. `assumed_throughput`, `training_hours`, `indexing_hours` stand in for what was
    not measured, and are marked so."""

    usd_per_hour: Figure
    evidence: Evidence
    assumed_throughput: Throughput | None = None
    assumed_training_hours: float | None = None
    assumed_indexing_hours: float | None = None
    utilisation: float | None = None
    extras: Extras = field(default_factory=Extras)

    def __post_init__(self) -> None:
        refuse_negative(training_hours=self.assumed_training_hours, indexing_hours=self.assumed_indexing_hours)


def compare(asked: Asked, here: Here, offers: Sequence[HostedOffer]) -> list[Row]:
    """Strategy by strategy: here, then each hosted model.

    Raises: InvalidInputError for what no month can be like.
    """
    rows = []
    for strategy in STRATEGIES:
        rows.append(local_row(strategy, asked, here))
        rows += [hosted_row(strategy, asked, offer, here.evidence) for offer in offers]
    return rows


def local_row(strategy: Strategy, asked: Asked, here: Here) -> Row:
    told = Told()
    set_up = told.noting("set-up", _set_up(strategy, here))
    update = told.noting("update", _update(strategy, asked, here))
    speed = told.noting("per query", speed_of(strategy, here))
    in_a_month = None
    if isinstance(speed, Speed):
        in_a_month = _month(asked.traffic_of(strategy), asked, here, speed, update)
    evaluated = here.evidence.answer(strategy, LOCAL)
    per_query = None if in_a_month is None else in_a_month.usd_per_query
    if in_a_month is not None and per_query is None:
        told.note("per query", "no queries a month: nothing to divide by; set --queries-per-month")
    total = None if in_a_month is None or (update is None and asked.updates_per_month) else in_a_month.total_usd
    return Row(
        strategy=strategy,
        where=LOCAL,
        set_up_usd=set_up,
        usd_per_query=per_query,
        latency_seconds=told.latency(evaluated, _unevaluated(here)),
        accepted_rate=told.accepted(evaluated, _unevaluated(here)),
        update_usd=update,
        data_needed=needed_data(strategy, here.evidence),
        cites=strategy in RETRIEVING,
        usd_per_month=total,
        month=in_a_month,
        missing=told.missing,
    )


def _unevaluated(here: Here) -> str:
    return (
        f"not evaluated on {here.evidence.whereabouts.label}: run local-llm evaluate QUESTIONS --profiles "
        "base,fine_tuned,rag,hybrid there"
    )


@dataclass(frozen=True)
class Speed:
    """Of the saturated machine, and where that is from."""

    throughput: Throughput
    measured: bool
    source: str


def _month(traffic: Traffic, asked: Asked, here: Here, speed: Speed, update: Figure | None) -> Month:
    price = replace(here.usd_per_hour, standing="measured" if speed.measured else "assumed", source=speed.source)
    return month(
        queries=asked.queries_per_month,
        seconds_per_query=request_seconds(traffic, speed.throughput),
        usd_per_hour=price,
        utilisation=here.utilisation,
        updates=asked.updates_per_month,
        update_usd=update or nothing("no updates"),
        extras=here.extras,
    )


def speed_of(strategy: Strategy, here: Here) -> Speed | Unknown:
    """Of an adapter for what is tuned; where only the base was measured its speed is taken, and that is assumed."""
    evidence, tuned = here.evidence, strategy in TUNED
    measured = evidence.throughput(adapter=tuned)
    if measured is not None:
        return Speed(measured.throughput, True, measured.run_id)
    if here.assumed_throughput is not None:
        return Speed(here.assumed_throughput, False, "tokens a second as given")
    base = evidence.throughput(adapter=False)
    if base is not None:
        return Speed(base.throughput, False, f"{base.run_id}, of the base: no adapter was measured")
    return Unknown(
        (
            f"no throughput measured on {evidence.whereabouts.label}: run local-llm cost measure there, or set "
            "--prefill-tokens-per-second and --decode-tokens-per-second",
        )
    )


def _set_up(strategy: Strategy, here: Here) -> Figure | Unknown:
    parts = []
    if strategy in TUNED:
        parts.append(_training(here))
    if strategy in RETRIEVING:
        parts.append(_indexing(here, 1.0))
    return whole(parts)


def _update(strategy: Strategy, asked: Asked, here: Here) -> Figure | Unknown:
    """A retraining from the start, and of an index what changes: as a changed fact was measured, else as a set-up
    was, in the share of documents that changes."""
    parts = []
    if strategy in TUNED:
        parts.append(_retraining(here))
    if strategy in RETRIEVING:
        parts.append(_reindexing(asked, here))
    return whole(parts)


def _retraining(here: Here) -> Figure | Unknown:
    measured = here.evidence.retraining
    if measured is None or here.assumed_training_hours is not None:
        return _training(here)
    return _hours(here, measured.hours, measured.run_id)


def _reindexing(asked: Asked, here: Here) -> Figure | Unknown:
    measured = here.evidence.reindexing
    if measured is None or here.assumed_indexing_hours is not None or _others(asked, measured):
        return _indexing(here, asked.share_of_documents(here.evidence))
    return _hours(here, measured.hours, measured.run_id)


def _others(asked: Asked, measured: MeasuredReindexing) -> bool:
    """Whether an update is of more or fewer documents than were measured."""
    return asked.documents_per_update not in (None, measured.documents)


def _training(here: Here) -> Figure | Unknown:
    measured = here.evidence.training
    if here.assumed_training_hours is not None:
        return _hours(here, here.assumed_training_hours, None)
    if measured is not None:
        return _hours(here, measured.hours, measured.run_id)
    return Unknown(
        (
            f"no training measured on {here.evidence.whereabouts.label}: run local-llm train adapter FILE there, "
            "or set --training-hours",
        )
    )


def _indexing(here: Here, share: float) -> Figure | Unknown:
    measured = here.evidence.indexing
    if here.assumed_indexing_hours is not None:
        return _hours(here, here.assumed_indexing_hours * share, None)
    if measured is not None:
        return _hours(here, measured.hours * share, measured.run_id)
    return Unknown(
        (
            f"no indexing measured on {here.evidence.whereabouts.label}: run local-llm index add there, or set "
            "--indexing-hours",
        )
    )


def _hours(here: Here, hours: float, run_id: str | None) -> Figure:
    """Hours x $/hour. What was measured are the hours; the price is an input, told with the others."""
    price = here.usd_per_hour.times(hours)
    if run_id is None:
        return replace(price, standing="assumed", source=f"{hours:g} h as given")
    return replace(price, standing="measured", source=run_id)
