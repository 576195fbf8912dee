"""How much a break-even depends on what it was reckoned with: points of the curves that are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from local_llm.costs.breakeven import break_even_requests_per_second
from local_llm.costs.local import Traffic, request_seconds, request_usd
from local_llm.costs.prices import HostedModel
from local_llm.costs.request import hosted_usd
from local_llm.costs.throughput import Throughput

# Rents of one GPU differ by more than this between vendors; ±40 % shows which way a better offer moves the answer.
PRICE_CHANGES = (-0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4)
UTILISATIONS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
CONTEXT_TOKENS = (0, 500, 1_000, 2_000, 4_000, 8_000, 16_000)


@dataclass(frozen=True)
class Curve:
    """`y` over `x`, of a hosted model or of the machine itself."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Sensitivity:
    """`by_utilisation` and the machine's curve of `by_context` need a throughput: empty without one."""

    by_price: tuple[Curve, ...]  # requests/s to break even, over the change of the price of an hour
    by_utilisation: tuple[Curve, ...]  # $ a request, over the utilisation
    by_context: tuple[Curve, ...]  # $ a request, over the tokens of context
    capacity_requests_per_second: float | None


def sensitivity(
    *, traffic: Traffic, usd_per_hour: float, hosted: Sequence[HostedModel], throughput: Throughput | None
) -> Sensitivity:
    """Around the inputs given: the price of an hour ±40 %, utilisation 5 to 100 %, context up to 16,000 tokens."""
    own: tuple[Curve, ...] = ()
    own_by_context: tuple[Curve, ...] = ()
    capacity = None
    if throughput is not None:
        seconds = request_seconds(traffic, throughput)
        capacity = 1 / seconds if seconds > 0 else None
        own = (_own_by_utilisation(traffic, throughput, usd_per_hour),)
        own_by_context = (_own_by_context(traffic, throughput, usd_per_hour),)
    return Sensitivity(
        by_price=tuple(_by_price(model, traffic, usd_per_hour) for model in hosted),
        by_utilisation=(*own, *(_level(model, traffic) for model in hosted)) if own else (),
        by_context=(*own_by_context, *(_by_context(model, traffic) for model in hosted)),
        capacity_requests_per_second=capacity,
    )


def _by_price(model: HostedModel, traffic: Traffic, usd_per_hour: float) -> Curve:
    price = _usd(model, traffic)
    rates = [
        break_even_requests_per_second(usd_per_hour=usd_per_hour * (1 + change), hosted_usd_per_request=price)
        for change in PRICE_CHANGES
    ]
    return Curve(model.model, PRICE_CHANGES, tuple(rates))


def _own_by_utilisation(traffic: Traffic, throughput: Throughput, usd_per_hour: float) -> Curve:
    prices = [request_usd(traffic, throughput, usd_per_hour=usd_per_hour, utilisation=u) for u in UTILISATIONS]
    return Curve("here", UTILISATIONS, tuple(prices))


def _level(model: HostedModel, traffic: Traffic) -> Curve:
    return Curve(model.model, UTILISATIONS, (_usd(model, traffic),) * len(UTILISATIONS))


def _own_by_context(traffic: Traffic, throughput: Throughput, usd_per_hour: float) -> Curve:
    prices = [
        request_usd(_with(traffic, context), throughput, usd_per_hour=usd_per_hour, utilisation=1)
        for context in CONTEXT_TOKENS
    ]
    return Curve("here, always busy", CONTEXT_TOKENS, tuple(prices))


def _by_context(model: HostedModel, traffic: Traffic) -> Curve:
    return Curve(
        model.model, CONTEXT_TOKENS, tuple(_usd(model, _with(traffic, context)) for context in CONTEXT_TOKENS)
    )


def _with(traffic: Traffic, context_tokens: float) -> Traffic:
    cached = min(traffic.cached_tokens, traffic.input_tokens + context_tokens)
    return replace(traffic, context_tokens=context_tokens, cached_tokens=cached)


def _usd(model: HostedModel, traffic: Traffic) -> float:
    return hosted_usd(
        model.token_prices,
        input_tokens=traffic.prompt_tokens,
        output_tokens=traffic.output_tokens,
        cached_tokens=traffic.cached_tokens,
    )
