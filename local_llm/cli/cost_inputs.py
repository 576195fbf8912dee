"""What is made of the options that commands of `local-llm cost` share."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local_llm.cli.context import CommandContext
from local_llm.cli.cost_options import HostedOptions, MachineOptions, RateOptions
from local_llm.costs.evaluations import read_answers
from local_llm.costs.evidence import Evidence, Whereabouts, gather
from local_llm.costs.figure import Figure, exactly
from local_llm.costs.local import Extras
from local_llm.costs.machine import Basis, Machine, machine_of, usd_per_hour
from local_llm.costs.prices import GPUPrice, HostedModel, Prices, load_prices, warnings
from local_llm.costs.throughput import Throughput
from local_llm.errors import NotFoundError
from local_llm.hardware import this_hardware
from local_llm.settings import Settings


@dataclass(frozen=True)
class Inputs:
    """The machine that is spoken of, what it costs, and what was measured on such a one."""

    prices: Prices
    machine: Machine
    basis: Basis
    usd_per_hour: Figure
    evidence: Evidence
    assumed_throughput: Throughput | None
    today: datetime.date


def inputs(box: CommandContext, options: MachineOptions, rates: RateOptions, evidence: Path | None) -> Inputs:
    """Raises: InvalidInputError, NotFoundError: what is missing or impossible, and what sets it."""
    prices = load_prices(box.settings)
    listed, whereabouts = _hardware(prices, options.gpu)
    gpus = _gpus(box.settings, options)
    machine = machine_of(
        listed,
        gpus=gpus,
        gpu_usd_per_hour=options.gpu_usd_per_hour,
        purchase_usd=options.purchase_usd,
        power_watts=options.power_watts,
        lifetime_years=options.lifetime_years,
        pue=options.pue,
        electricity_usd_per_kwh=options.electricity_usd_per_kwh,
        hosting_usd_per_month=options.hosting_usd_per_month,
    )
    answers = read_answers(evidence) if evidence is not None else ()
    return Inputs(
        prices=prices,
        machine=machine,
        basis=options.basis,
        usd_per_hour=_hour(box.settings, machine, options, whereabouts),
        evidence=gather(box.state, box.caller.project_id, whereabouts, gpus=gpus, answers=answers),
        assumed_throughput=rates.throughput(),
        today=datetime.date.today(),
    )


def hosted_models(found: Inputs, options: HostedOptions) -> list[HostedModel]:
    """Those named; else all chat models that are no fine-tuned ones and still sold.

    Raises: NotFoundError.
    """
    if options.hosted:
        return [found.prices.model(name) for name in options.hosted]
    tuned = {row.fine_tuned_model for row in found.prices.hosted}
    return [
        row
        for row in found.prices.hosted
        if row.kind == "chat"
        and row.model not in tuned
        and (row.end_of_life is None or row.end_of_life > found.today)
    ]


def price_warnings(found: Inputs, models: Sequence[HostedModel]) -> list[str]:
    """Of the models compared, their fine-tuned kin, and the GPU where its listed rent is used."""
    tuned = [row for row in found.prices.hosted for one in models if one.fine_tuned_model == row.model]
    rows: dict[str, HostedModel] = {row.model: row for row in (*models, *tuned)}
    lines = warnings(rows.values(), found.today)
    if found.usd_per_hour.standing == "listed":
        gpus = [row for row in found.prices.gpus if row.gpu == found.machine.name]
        lines += warnings(gpus, found.today)
    return lines


def hour_assumptions(found: Inputs) -> list[str]:
    price, machine = found.usd_per_hour, found.machine
    span = "" if price.low == price.high else f" (the middle of ${price.low:.4g} and ${price.high:.4g})"
    lines = [
        f"an hour of {machine.name} x {machine.gpus}, {found.basis}: ${price.expected:.4g}{span}, "
        f"{price.standing}: {price.source}",
        f"prices: sha256 {found.prices.sha256}, of {', '.join(str(path) for path in found.prices.files)}",
    ]
    if found.basis != "rent":
        lines.append(f"PUE {machine.pue:g}; electricity ${machine.electricity_usd_per_kwh} a kWh")
    if found.basis == "own":
        lines.append(
            f"lifetime {machine.lifetime_years:g} years; hosting ${machine.hosting_usd_per_month:g} a month"
        )
    return lines


def batch_lines(batch: bool) -> list[str]:
    if not batch:
        return []
    return ["hosted in batches: no price is lower for what the cache holds, and nobody says how long they take"]


def extras_line(extras: Extras) -> str:
    return (
        f"a month here besides: staff ${extras.staff_usd_per_month:g}, storage ${extras.storage_usd_per_month:g}, "
        f"network ${extras.network_usd_per_month:g}, as given"
    )


def _hardware(prices: Prices, gpu: str | None) -> tuple[GPUPrice, Whereabouts]:
    """A GPU of the price list, or this machine, priced or not."""
    if gpu is not None:
        listed = prices.gpu(gpu)
        return listed, Whereabouts.of(listed)
    here = this_hardware()
    try:
        return prices.gpu(here.name), Whereabouts.here(here)
    except NotFoundError:
        unpriced = GPUPrice(gpu=here.name, driver_names=(), as_of="1970-01", source="this machine")
        return unpriced, Whereabouts.here(here)


def _gpus(settings: Settings, options: MachineOptions) -> int:
    if options.gpus is not None:
        return options.gpus
    return settings.engine.all_gpus if options.gpu is None else 1


def _hour(settings: Settings, machine: Machine, options: MachineOptions, whereabouts: Whereabouts) -> Figure:
    """This machine's rent is the setting's. Its default stands for a processor: of a GPU it must be set."""
    if options.basis != "rent" or options.gpu is not None or options.gpu_usd_per_hour is not None:
        return usd_per_hour(machine, options.basis)
    given = "machine_usd_per_hour" in settings.cost.model_fields_set
    if given or (whereabouts.device == "cpu" and machine.gpu_usd_per_hour is None):
        return exactly(settings.cost.machine_usd_per_hour, "assumed", "cost.machine_usd_per_hour")
    return usd_per_hour(machine, options.basis)
