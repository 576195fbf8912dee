"""When a machine of one's own is cheaper than a hosted model."""

from dataclasses import dataclass
from typing import Literal

from local_llm.costs.figure import refuse_negative, refuse_not_a_share, refuse_not_positive
from local_llm.costs.units import SECONDS_PER_HOUR
from local_llm.errors import InvalidInputError

# unknown: nobody measured what the machine can do.
Reach = Literal["reachable", "unreachable", "unknown"]


@dataclass(frozen=True)
class BreakEven:
    """`utilisation` is the break-even's share of the capacity; None where that was not measured."""

    requests_per_second: float
    capacity_requests_per_second: float | None
    utilisation: float | None
    reach: Reach


def break_even(
    *, usd_per_hour: float, hosted_usd_per_request: float, capacity_requests_per_second: float | None
) -> BreakEven:
    """Raises: InvalidInputError for negative numbers, or a hosted answer that costs nothing."""
    rate = break_even_requests_per_second(usd_per_hour=usd_per_hour, hosted_usd_per_request=hosted_usd_per_request)
    if capacity_requests_per_second is None:
        return BreakEven(rate, None, None, "unknown")
    refuse_not_positive(capacity_requests_per_second=capacity_requests_per_second)
    utilisation = rate / capacity_requests_per_second
    return BreakEven(
        rate, capacity_requests_per_second, utilisation, "reachable" if utilisation <= 1 else "unreachable"
    )


def break_even_requests_per_second(*, usd_per_hour: float, hosted_usd_per_request: float) -> float:
    """$/hour / 3600 / hosted $ a request: held around the clock, from there on the machine is cheaper.

    Raises: InvalidInputError for negative numbers, or a hosted answer that costs nothing.
    """
    refuse_negative(usd_per_hour=usd_per_hour)
    if hosted_usd_per_request <= 0:
        raise InvalidInputError(
            f"the hosted answer costs ${hosted_usd_per_request}: no machine is cheaper than that",
            hint="set --input-tokens and --output-tokens above zero, and look at local-llm cost prices list",
        )
    return usd_per_hour / SECONDS_PER_HOUR / hosted_usd_per_request


def at_equal_acceptance(
    hosted_usd_per_request: float, *, local_accepted_rate: float, hosted_accepted_rate: float
) -> float:
    """hosted $ a request x local accepted rate / hosted accepted rate.

    What the hosted model would have to cost to give as many accepted answers for the money as it does: put in the
    place of its price, the break-even holds for accepted answers.

    Raises: InvalidInputError for rates not in (0, 1].
    """
    refuse_not_a_share(local_accepted_rate=local_accepted_rate, hosted_accepted_rate=hosted_accepted_rate)
    return hosted_usd_per_request * local_accepted_rate / hosted_accepted_rate


def payback_months(
    *, purchase_usd: float, hosted_usd_per_month: float, running_usd_per_month: float
) -> float | None:
    """purchase / (hosted a month - running a month); None: never, as running it alone costs as much.

    Running: electricity, hosting, staff, storage, network; no depreciation, which is the purchase.

    Raises: InvalidInputError for negative numbers.
    """
    refuse_negative(
        purchase_usd=purchase_usd,
        hosted_usd_per_month=hosted_usd_per_month,
        running_usd_per_month=running_usd_per_month,
    )
    saved = hosted_usd_per_month - running_usd_per_month
    return purchase_usd / saved if saved > 0 else None
