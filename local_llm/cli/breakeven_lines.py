"""A break-even of each hosted model, with what it is worth at equal answers."""

from dataclasses import dataclass
from typing import Literal

from local_llm.cli.cost_inputs import Inputs
from local_llm.costs.breakeven import BreakEven, at_equal_acceptance, break_even, payback_months
from local_llm.costs.compare import Here, speed_of
from local_llm.costs.local import Extras, Traffic, request_seconds
from local_llm.costs.machine import electricity_usd_per_hour
from local_llm.costs.prices import HostedModel, batched
from local_llm.costs.request import hosted_usd
from local_llm.costs.row import Unknown
from local_llm.costs.throughput import Throughput
from local_llm.costs.units import HOURS_PER_MONTH, SECONDS_PER_HOUR
from local_llm.errors import InvalidInputError
from local_llm.profiles import Strategy

PaysBack = Literal["yes", "never", "beyond its capacity"]


@dataclass(frozen=True)
class Line:
    """Of one hosted model. `hosted_usd_per_request` None: unpriced. No break-even: there is no price, or nothing
    was accepted on one side; `accepted` says of which. `pays_back`: whether a bought machine saves its price; None:
    not asked, or not known."""

    model: str
    hosted_usd_per_request: float | None
    low: BreakEven | None
    expected: BreakEven | None
    high: BreakEven | None
    accepted: str
    runs: tuple[str, ...]
    pays_back: PaysBack | None
    months_to_pay_back: float | None


@dataclass(frozen=True)
class Asked:
    """What is held against every hosted model. `throughput` None: not measured, and none assumed."""

    traffic: Traffic
    strategy: Strategy
    extras: Extras
    throughput: Throughput | None
    queries_per_month: float | None

    @property
    def capacity_requests_per_second(self) -> float | None:
        seconds = 0.0 if self.throughput is None else request_seconds(self.traffic, self.throughput)
        return 1 / seconds if seconds > 0 else None


def capacity_of(found: Inputs, strategy: Strategy) -> tuple[Throughput | None, str]:
    """The throughput that `compare` takes, too, and where it is from or what measures it."""
    here = Here(found.usd_per_hour, found.evidence, found.assumed_throughput)
    speed = speed_of(strategy, here)
    if isinstance(speed, Unknown):
        return None, f"capacity unknown: {'; '.join(speed.reasons)}"
    standing = "measured" if speed.measured else "assumed"
    return speed.throughput, f"capacity {standing} on {found.evidence.whereabouts.label}: {speed.source}"


def bought_at(model: HostedModel, *, batch: bool) -> HostedModel | None:
    """The model at the prices it is bought at; None: its answers are unpriced so."""
    offer = batched(model) if batch else model
    return None if offer is None or offer.output_usd_per_million_tokens is None else offer


def line_of(found: Inputs, model: HostedModel, offer: HostedModel | None, asked: Asked) -> Line:
    """`offer`: the model at the prices it is bought at; None: unpriced so. Raises: InvalidInputError."""
    if offer is None:
        unpriced = "unpriced" if model.output_usd_per_million_tokens is None else "unpriced in batches"
        return Line(model.model, None, None, None, None, unpriced, (), None, None)
    traffic = asked.traffic
    price = hosted_usd(
        offer.token_prices,
        input_tokens=traffic.prompt_tokens,
        output_tokens=traffic.output_tokens,
        cached_tokens=traffic.cached_tokens,
    )
    if price == 0:
        return Line(
            model.model, 0.0, None, None, None, "costs nothing there: no machine is cheaper", (), None, None
        )
    equal, accepted, runs = _equal(found, model, asked.strategy, price)
    if equal is None:
        return Line(model.model, price, None, None, None, accepted, runs, None, None)
    fixed, capacity = asked.extras.usd_per_month / HOURS_PER_MONTH, asked.capacity_requests_per_second
    hour = found.usd_per_hour
    low, expected, high = (
        break_even(usd_per_hour=value + fixed, hosted_usd_per_request=equal, capacity_requests_per_second=capacity)
        for value in (hour.low, hour.expected, hour.high)
    )
    return Line(model.model, price, low, expected, high, accepted, runs, *_payback(found, equal, asked))


def _payback(found: Inputs, price: float, asked: Asked) -> tuple[PaysBack | None, float | None]:
    """Whether, and after how many months. Raises: InvalidInputError without a purchase price."""
    queries, capacity = asked.queries_per_month, asked.capacity_requests_per_second
    if queries is None:
        return None, None
    machine = found.machine
    if machine.purchase_usd is None:
        raise InvalidInputError(
            f"the purchase price of {machine.name} is unpriced, and none is assumed", hint="set --purchase-usd"
        )
    running = electricity_usd_per_hour(machine).expected * HOURS_PER_MONTH
    months = payback_months(
        purchase_usd=machine.purchase_usd.expected,
        hosted_usd_per_month=queries * price,
        running_usd_per_month=running + machine.hosting_usd_per_month + asked.extras.usd_per_month,
    )
    if capacity is not None and queries > capacity * HOURS_PER_MONTH * SECONDS_PER_HOUR:
        return "beyond its capacity", None
    return ("never" if months is None else "yes"), months


def _equal(
    found: Inputs, model: HostedModel, strategy: Strategy, price: float
) -> tuple[float | None, str, tuple[str, ...]]:
    """The price at equal accepted answers, how that was seen, and by which runs.

    The plain price where nobody looked; None where one side had no accepted answer: no price makes these equal.
    """
    pair = found.evidence.compared(strategy, model.model)
    if pair is None or pair[0].accepted_rate is None or pair[1].accepted_rate is None:
        return price, "not evaluated with the same questions: answers taken as equally good", ()
    ours, theirs = pair[0].accepted_rate, pair[1].accepted_rate
    runs = tuple(dict.fromkeys(one.run_id for one in pair))
    supposed = "".join(f", {one.supposed}" for one in pair if one.supposed)
    told = f"{ours:.0%} here, {theirs:.0%} hosted{supposed}"
    if 0 in (ours, theirs):
        return None, f"{told}: no accepted answer has no price", runs
    return at_equal_acceptance(price, local_accepted_rate=ours, hosted_accepted_rate=theirs), told, runs
