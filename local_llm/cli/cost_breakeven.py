"""local-llm cost breakeven: from how many requests on a machine here is cheaper than a hosted model."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from local_llm.cli import cost_inputs as given
from local_llm.cli.breakeven_lines import Asked, Line, bought_at, capacity_of, line_of
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.cost_options import (
    EvidenceFile,
    ExtraOptions,
    HostedOptions,
    MachineOptions,
    RateOptions,
    RequestOptions,
)
from local_llm.cli.cost_tables import usd
from local_llm.cli.option_groups import with_option_groups
from local_llm.cli.output import emit_json, emit_table, talk
from local_llm.costs.drawing import draw
from local_llm.costs.local import Traffic
from local_llm.costs.prices import HostedModel
from local_llm.costs.sensitivity import sensitivity
from local_llm.costs.units import HOURS_PER_MONTH
from local_llm.profiles import Strategy


@with_option_groups
def breakeven(
    context: typer.Context,
    request: RequestOptions,
    hosted: HostedOptions,
    machine: MachineOptions,
    rates: RateOptions,
    extra: ExtraOptions,
    context_tokens: Annotated[float, typer.Option(help="Tokens of passages before the question.")] = 0.0,
    strategy: Annotated[Strategy, typer.Option(help="Whose speed and accepted answers count here.")] = "base",
    queries_per_month: Annotated[
        float | None, typer.Option(help="With --purchase-usd: for the months until it has paid for itself.")
    ] = None,
    evidence: EvidenceFile = None,
    plot: Annotated[Path | None, typer.Option(help="Draw what it depends on: FILE.svg or FILE.png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Says from how many requests a second, held around the clock, a machine is cheaper than each hosted model.

    `unreachable`: more than the machine was measured to do. Where both sides were evaluated with the same questions
    the costs of accepted answers are compared.
    """
    box: CommandContext = context.obj
    found, extras = given.inputs(box, machine, rates, evidence), extra.extras()
    traffic = Traffic(request.input_tokens, request.output_tokens, context_tokens, request.cached_tokens)
    throughput, standing = capacity_of(found, strategy)
    models = given.hosted_models(found, hosted)
    priced = {model: bought_at(model, batch=hosted.batch) for model in models}
    asked = Asked(traffic, strategy, extras, throughput, queries_per_month)
    lines = [line_of(found, model, offer, asked) for model, offer in priced.items()]
    assumptions = [
        f"a request: {traffic.prompt_tokens:g} tokens in, {traffic.output_tokens:g} out, "
        f"{traffic.cached_tokens:g} cached",
        standing,
        *given.hour_assumptions(found),
        *given.batch_lines(hosted.batch),
        given.extras_line(extras),
    ]
    warnings = given.price_warnings(found, models)
    for line in warnings:
        talk(f"warning: {line}")
    if plot is not None:
        paid = [line.model for line in lines if line.hosted_usd_per_request]
        offers = [offer for model, offer in priced.items() if offer is not None and model.model in paid]
        _draw(plot, found, asked, offers)
    if as_json:
        emit_json(_json(found, lines, assumptions, warnings))
        return
    _print(lines, assumptions, paying_back=queries_per_month is not None)


def _draw(plot: Path, found: given.Inputs, asked: Asked, priced: Sequence[HostedModel]) -> None:
    hour = found.usd_per_hour.expected + asked.extras.usd_per_month / HOURS_PER_MONTH
    curves = sensitivity(traffic=asked.traffic, usd_per_hour=hour, hosted=priced, throughput=asked.throughput)
    draw(curves, plot, title=f"{found.machine.name} at ${hour:.4g} an hour")
    talk(f"drawn: {plot}")


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
