"""What answers cost on a machine of one's own: a request, and a month with its idle hours on their own line."""

import math
from dataclasses import dataclass

from local_llm.costs.figure import Figure, exactly, refuse_negative, refuse_not_a_share
from local_llm.costs.throughput import Throughput
from local_llm.costs.units import HOURS_PER_MONTH, SECONDS_PER_HOUR
from local_llm.errors import InvalidInputError


@dataclass(frozen=True)
class Traffic:
    """Tokens of a request. `cached_tokens` are those of the input that the cache holds, on either side."""

    input_tokens: float
    output_tokens: float
    context_tokens: float = 0.0
    cached_tokens: float = 0.0

    def __post_init__(self) -> None:
        refuse_negative(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            context_tokens=self.context_tokens,
            cached_tokens=self.cached_tokens,
        )
        if self.cached_tokens > self.prompt_tokens:
            raise InvalidInputError(
                f"{self.cached_tokens:g} tokens are cached of {self.prompt_tokens:g} in the prompt; expected no "
                "more than there are",
                hint="set --cached-tokens",
            )

    @property
    def prompt_tokens(self) -> float:
        """With the passages before the question."""
        return self.input_tokens + self.context_tokens


@dataclass(frozen=True)
class Extras:
    """US dollars a month that no formula gives."""

    staff_usd_per_month: float = 0.0
    storage_usd_per_month: float = 0.0
    network_usd_per_month: float = 0.0

    def __post_init__(self) -> None:
        refuse_negative(
            staff_usd_per_month=self.staff_usd_per_month,
            storage_usd_per_month=self.storage_usd_per_month,
            network_usd_per_month=self.network_usd_per_month,
        )

    @property
    def usd_per_month(self) -> float:
        return self.staff_usd_per_month + self.storage_usd_per_month + self.network_usd_per_month


@dataclass(frozen=True)
class Month:
    """`busy_usd` buys the saturated throughput that was used, `idle_usd` what stood unused beside it."""

    queries: float
    machines: int
    utilisation: float
    busy_hours: float
    paid_hours: float
    busy_usd: Figure
    idle_usd: Figure
    updates_usd: Figure
    extras_usd: float

    @property
    def total_usd(self) -> Figure:
        sum_of_machine = self.busy_usd.plus(self.idle_usd).plus(self.updates_usd)
        return sum_of_machine.plus(exactly(self.extras_usd, self.busy_usd.standing, ""))

    @property
    def usd_per_query(self) -> Figure | None:
        """Of the machine's hours, idle ones too; None where nothing is asked: nobody to share them out to."""
        if self.queries == 0:
            return None
        return self.busy_usd.plus(self.idle_usd).times(1 / self.queries)


def request_seconds(traffic: Traffic, throughput: Throughput) -> float:
    """Seconds of the saturated machine that the request takes."""
    return throughput.seconds(
        uncached_prefill_tokens=traffic.prompt_tokens - traffic.cached_tokens, decode_tokens=traffic.output_tokens
    )


def request_usd(traffic: Traffic, throughput: Throughput, *, usd_per_hour: float, utilisation: float) -> float:
    """seconds of the saturated machine x $/hour / 3600 / utilisation.

    Never the seconds that a request waits x $/hour: the machine answers many at once, and would be paid for once
    for each.

    Raises: InvalidInputError for a utilisation not in (0, 1].
    """
    refuse_not_a_share(utilisation=utilisation)
    refuse_negative(usd_per_hour=usd_per_hour)
    return request_seconds(traffic, throughput) * usd_per_hour / SECONDS_PER_HOUR / utilisation


def month(
    *,
    queries: float,
    seconds_per_query: float,
    usd_per_hour: Figure,
    utilisation: float | None = None,
    updates: float = 0.0,
    update_usd: Figure,
    extras: Extras,
) -> Month:
    """busy hours = queries x seconds / 3600; paid hours = busy hours / utilisation, or whole machines of 730 h.

    With `utilisation` None as many whole machines are paid around the clock as the queries need, one at least, and
    the utilisation follows. Given, it decides the hours that are paid.

    Raises: InvalidInputError for negative numbers, or a utilisation not in (0, 1], or of nothing.
    """
    refuse_negative(queries_per_month=queries, updates_per_month=updates, seconds_per_query=seconds_per_query)
    busy_hours = queries * seconds_per_query / SECONDS_PER_HOUR
    if utilisation is None:
        machines = max(1, math.ceil(busy_hours / HOURS_PER_MONTH))
        paid_hours = machines * HOURS_PER_MONTH
        utilisation = busy_hours / paid_hours
    else:
        refuse_not_a_share(utilisation=utilisation)
        if busy_hours == 0:
            raise InvalidInputError(
                f"nothing to answer in a month cannot be a utilisation of {utilisation:g}",
                hint="leave --utilisation out, and an idle machine is paid; or set --queries-per-month above zero",
            )
        paid_hours = busy_hours / utilisation
        machines = math.ceil(paid_hours / HOURS_PER_MONTH)
    return Month(
        queries=queries,
        machines=machines,
        utilisation=utilisation,
        busy_hours=busy_hours,
        paid_hours=paid_hours,
        busy_usd=usd_per_hour.times(busy_hours),
        idle_usd=usd_per_hour.times(paid_hours - busy_hours),
        updates_usd=update_usd.times(updates),
        extras_usd=extras.usd_per_month,
    )
