"""local-llm cost breakeven: from how many requests on a machine here is cheaper than a hosted model."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from local_llm.cli import cost_inputs as given
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.cost_tables import usd
from local_llm.cli.output import emit_json, emit_table, talk
from local_llm.costs.breakeven import BreakEven, at_equal_acceptance, break_even, payback_months
from local_llm.costs.compare import TUNED
from local_llm.costs.drawing import draw
from local_llm.costs.evidence import MeasuredThroughput
from local_llm.costs.local import Extras, Traffic, request_seconds
from local_llm.costs.machine import ASSUMED_LIFETIME_YEARS, AVERAGE_PUE, electricity_usd_per_hour
from local_llm.costs.prices import HostedModel, batched
from local_llm.costs.request import hosted_usd
from local_llm.costs.sensitivity import sensitivity
from local_llm.costs.throughput import Throughput
from local_llm.costs.units import HOURS_PER_MONTH, SECONDS_PER_HOUR
from local_llm.errors import InvalidInputError
from local_llm.profiles import Strategy


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
    pays_back: Literal["yes", "never", "beyond its capacity"] | None
    months_to_pay_back: float | None


def breakeven(
    context: typer.Context,
    input_tokens: given.InputTokens = given.DEFAULT_INPUT_TOKENS,
    output_tokens: given.OutputTokens = given.DEFAULT_OUTPUT_TOKENS,
    context_tokens: Annotated[float, typer.Option(help="Tokens of passages before the question.")] = 0.0,
    cached_tokens: given.CachedTokens = 0.0,
    strategy: Annotated[Strategy, typer.Option(help="Whose speed and accepted answers count here.")] = "base",
    queries_per_month: Annotated[
        float | None, typer.Option(help="With --purchase-usd: for the months until it has paid for itself.")
    ] = None,
    hosted: given.Hosted = None,
    batch: given.Batch = False,
    basis: given.BasisOption = "rent",
    gpu: given.GPUName = None,
    gpus: given.GPUs = None,
    gpu_usd_per_hour: given.GPUHour = None,
    prefill_tokens_per_second: given.PrefillRate = None,
    decode_tokens_per_second: given.DecodeRate = None,
    purchase_usd: given.Purchase = None,
    power_watts: given.Power = None,
    lifetime_years: given.Lifetime = ASSUMED_LIFETIME_YEARS,
    pue: given.PUE = AVERAGE_PUE,
    electricity_usd_per_kwh: given.Electricity = None,
    hosting_usd_per_month: given.Hosting = 0.0,
    staff_usd_per_month: given.Staff = 0.0,
    storage_usd_per_month: given.Storage = 0.0,
    network_usd_per_month: given.Network = 0.0,
    evidence: given.EvidenceFile = None,
    plot: Annotated[Path | None, typer.Option(help="Draw what it depends on: FILE.svg or FILE.png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Says from how many requests a second, held around the clock, a machine is cheaper than each hosted model.

    `unreachable`: more than the machine was measured to do. Where both sides were evaluated with the same questions
    the costs of accepted answers are compared.
    """
    box: CommandContext = context.obj
    options = given.MachineOptions(
        basis, gpu, gpus, gpu_usd_per_hour, purchase_usd, power_watts,
        lifetime_years, pue, electricity_usd_per_kwh, hosting_usd_per_month,
    )  # fmt: skip
    found = given.inputs(box, options, (prefill_tokens_per_second, decode_tokens_per_second), evidence)
    traffic = Traffic(input_tokens, output_tokens, context_tokens, cached_tokens)
    extras = Extras(staff_usd_per_month, storage_usd_per_month, network_usd_per_month)
    throughput, standing = _throughput(found, strategy)
    models = given.hosted_models(found, hosted)
    capacity = None if throughput is None else _capacity(traffic, throughput)
    running = None
    if queries_per_month is not None:
        running = electricity_usd_per_hour(found.machine).expected * HOURS_PER_MONTH + hosting_usd_per_month
        running += extras.usd_per_month
    lines = [
        _line(
            found, model, batched(model) if batch else model,
            traffic, strategy, extras, capacity, queries_per_month, running,
        )
        for model in models
    ]  # fmt: skip
    assumptions = [
        f"a request: {traffic.prompt_tokens:g} tokens in, {output_tokens:g} out, {cached_tokens:g} cached",
        standing,
        *given.hour_assumptions(found),
        *given.batch_lines(batch),
        given.extras_line(extras),
    ]
    warnings = given.price_warnings(found, models)
    for line in warnings:
        talk(f"warning: {line}")
    if plot is not None:
        hour = found.usd_per_hour.expected + extras.usd_per_month / HOURS_PER_MONTH
        priced = [row for model in models if (row := batched(model) if batch else model) is not None]
        curves = sensitivity(traffic=traffic, usd_per_hour=hour, hosted=priced, throughput=throughput)
        draw(curves, plot, title=f"{found.machine.name} at ${hour:.4g} an hour")
        talk(f"drawn: {plot}")
    if as_json:
        emit_json(_json(found, lines, assumptions, warnings))
        return
    _print(lines, assumptions, paying_back=queries_per_month is not None)


def _line(
    found: given.Inputs,
    model: HostedModel,
    priced: HostedModel | None,
    traffic: Traffic,
    strategy: Strategy,
    extras: Extras,
    capacity: float | None,
    queries: float | None,
    running: float | None,
) -> Line:
    if priced is None:
        return Line(model.model, None, None, None, None, "unpriced in batches", (), None, None)
    price = hosted_usd(
        priced.token_prices,
        input_tokens=traffic.prompt_tokens,
        output_tokens=traffic.output_tokens,
        cached_tokens=traffic.cached_tokens,
    )
    equal, accepted, runs = _equal(found, model, strategy, price)
    if equal is None:
        return Line(model.model, price, None, None, None, accepted, runs, None, None)
    fixed = extras.usd_per_month / HOURS_PER_MONTH
    hour = found.usd_per_hour
    low, expected, high = (
        break_even(usd_per_hour=value + fixed, hosted_usd_per_request=equal, capacity_requests_per_second=capacity)
        for value in (hour.low, hour.expected, hour.high)
    )
    months = _payback(found, equal, queries, running)
    pays_back: Literal["yes", "never", "beyond its capacity"] | None = None
    if queries is not None:
        pays_back = "never" if months is None else "yes"
        if capacity is not None and queries > capacity * HOURS_PER_MONTH * SECONDS_PER_HOUR:
            pays_back, months = "beyond its capacity", None
    return Line(model.model, price, low, expected, high, accepted, runs, pays_back, months)


def _payback(found: given.Inputs, price: float, queries: float | None, running: float | None) -> float | None:
    if queries is None or running is None:
        return None
    purchase = found.machine.purchase_usd
    if purchase is None:
        raise InvalidInputError(
            f"the purchase price of {found.machine.name} is unpriced, and none is assumed",
            hint="set --purchase-usd",
        )
    return payback_months(
        purchase_usd=purchase.expected, hosted_usd_per_month=queries * price, running_usd_per_month=running
    )


def _equal(
    found: given.Inputs, model: HostedModel, strategy: Strategy, price: float
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


def _throughput(found: given.Inputs, strategy: Strategy) -> tuple[Throughput | None, str]:
    measured: MeasuredThroughput | None = found.evidence.throughput(adapter=strategy in TUNED)
    label = found.evidence.whereabouts.label
    if measured is not None:
        return measured.throughput, f"capacity measured on {label} with {measured.model}: {measured.run_id}"
    if found.assumed_throughput is not None:
        return found.assumed_throughput, "capacity assumed: tokens a second as given"
    return None, (
        f"capacity unknown: no throughput measured on {label}: run local-llm cost measure there, or set "
        "--prefill-tokens-per-second and --decode-tokens-per-second"
    )


def _capacity(traffic: Traffic, throughput: Throughput) -> float | None:
    seconds = request_seconds(traffic, throughput)
    return 1 / seconds if seconds > 0 else None


def _print(lines: list[Line], assumptions: list[str], *, paying_back: bool) -> None:
    columns = ["hosted", "a request", "requests/s", "utilisation", "local wins", "accepted answers"]
    columns += ["months to pay back"] if paying_back else []
    emit_table([_cells(line) for line in lines], columns, as_json=False, empty="")
    runs = list(dict.fromkeys(run for line in lines for run in line.runs))
    told = [f"accepted answers: {', '.join(runs)}"] if runs else []
    print("\ninputs and assumptions:")  # noqa: T201
    for text in (*assumptions, *told):
        print(f"  {text}")  # noqa: T201


def _cells(line: Line) -> dict[str, str | None]:
    none = "unpriced" if line.hosted_usd_per_request is None else "none"
    months = line.months_to_pay_back
    return {
        "hosted": line.model,
        "a request": none if line.hosted_usd_per_request is None else usd(line.hosted_usd_per_request),
        **_rate_cells(line, none),
        "accepted answers": line.accepted,
        "months to pay back": line.pays_back if months is None else f"{months:.1f}",
    }


def _rate_cells(line: Line, none: str) -> dict[str, str]:
    expected, low, high = line.expected, line.low, line.high
    if expected is None or low is None or high is None:
        return dict.fromkeys(("requests/s", "utilisation", "local wins"), none)
    span = "" if low == high else f" ({low.requests_per_second:.2f} to {high.requests_per_second:.2f})"
    use = expected.utilisation
    return {
        "requests/s": f"{expected.requests_per_second:.2f}{span}",
        "utilisation": "unknown" if use is None else f"{use:.1%}",
        "local wins": {"reachable": "from there on"}.get(expected.reach, expected.reach),
    }


def _json(found: given.Inputs, lines: list[Line], assumptions: list[str], warnings: list[str]) -> dict[str, Any]:
    return {
        "hardware": found.evidence.whereabouts.label,
        "usd_per_hour": asdict(found.usd_per_hour),
        "basis": found.basis,
        "prices_sha256": found.prices.sha256,
        "break_even": [asdict(line) for line in lines],
        "assumptions": assumptions,
        "warnings": warnings,
    }
