"""What an hour of a machine costs, on each of three bases: rented, owned, or its electricity alone."""

from dataclasses import dataclass
from typing import Literal

from local_llm.costs.figure import (
    Figure,
    between,
    exactly,
    refuse_negative,
    refuse_not_positive,
)
from local_llm.costs.prices import GPUPrice
from local_llm.costs.units import HOURS_PER_MONTH, HOURS_PER_YEAR, WATTS_PER_KILOWATT
from local_llm.errors import InvalidInputError

Basis = Literal["rent", "own", "electricity"]

# Source: Uptime Institute, Global Data Center Survey 2024: the sites' average. Your site's own is better.
AVERAGE_PUE = 1.56
# A supposition, not a rule: what the machine's own books say is better.
ASSUMED_LIFETIME_YEARS = 4.0


@dataclass(frozen=True)
class Machine:
    """What is known of a machine's price. None: not known, and asked for by name where it is needed.

    `purchase_usd`, `power_watts` and `hosting_usd_per_month` are the whole machine's, all GPUs together;
    `gpu_usd_per_hour` is one GPU's.
    """

    name: str
    gpus: int = 1
    gpu_usd_per_hour: Figure | None = None
    purchase_usd: Figure | None = None
    power_watts: Figure | None = None
    lifetime_years: float = ASSUMED_LIFETIME_YEARS
    pue: float = AVERAGE_PUE
    electricity_usd_per_kwh: float | None = None
    hosting_usd_per_month: float = 0.0


def usd_per_hour(machine: Machine, basis: Basis) -> Figure:
    """Raises: InvalidInputError naming what is missing or impossible, and the option that sets it."""
    if basis == "rent":
        return rented_usd_per_hour(machine)
    if basis == "own":
        return owned_usd_per_hour(machine)
    return electricity_usd_per_hour(machine)


def rented_usd_per_hour(machine: Machine) -> Figure:
    """GPUs x rent of a GPU-hour."""
    refuse_not_positive(gpus=machine.gpus)
    return _known(machine.gpu_usd_per_hour, machine, "rent", "--gpu-usd-per-hour").times(machine.gpus)


def owned_usd_per_hour(machine: Machine) -> Figure:
    """purchase / (lifetime x 8,760 h) + power x PUE x price of a kWh + hosting / 730 h.

    Straight-line depreciation to nothing at the end of the lifetime, around the clock.
    """
    refuse_not_positive(lifetime_years=machine.lifetime_years)
    refuse_negative(hosting_usd_per_month=machine.hosting_usd_per_month)
    purchase = _known(machine.purchase_usd, machine, "purchase price", "--purchase-usd")
    depreciation = purchase.times(1 / (machine.lifetime_years * HOURS_PER_YEAR))
    hosting = exactly(machine.hosting_usd_per_month / HOURS_PER_MONTH, "assumed", "")
    return depreciation.plus(electricity_usd_per_hour(machine)).plus(hosting)


def electricity_usd_per_hour(machine: Machine) -> Figure:
    """power / 1,000 x PUE x price of a kWh.

    Source: PUE is the power of the whole site over that of its computers (ISO/IEC 30134-2). The data sheet's
    highest power is taken, busy or not: an upper bound until the machine's own is given.
    """
    if machine.pue < 1:
        raise InvalidInputError(f"pue is {machine.pue}; expected 1 or more", hint="set --pue")
    refuse_negative(electricity_usd_per_kwh=machine.electricity_usd_per_kwh)
    power = _known(machine.power_watts, machine, "power", "--power-watts")
    if machine.electricity_usd_per_kwh is None:
        raise InvalidInputError(
            "the price of electricity is not known, and none is assumed", hint="set --electricity-usd-per-kwh"
        )
    return power.times(machine.pue * machine.electricity_usd_per_kwh / WATTS_PER_KILOWATT)


def machine_of(
    price: GPUPrice,
    *,
    gpus: int = 1,
    gpu_usd_per_hour: float | None = None,
    purchase_usd: float | None = None,
    power_watts: float | None = None,
    lifetime_years: float = ASSUMED_LIFETIME_YEARS,
    pue: float = AVERAGE_PUE,
    electricity_usd_per_kwh: float | None = None,
    hosting_usd_per_month: float = 0.0,
) -> Machine:
    """A machine of the price file's GPUs; what is given goes before what is listed."""
    refuse_not_positive(gpus=gpus)
    refuse_negative(gpu_usd_per_hour=gpu_usd_per_hour, purchase_usd=purchase_usd, power_watts=power_watts)
    listed = f"{price.gpu}, {price.as_of}: {price.source}"
    return Machine(
        name=price.gpu,
        gpus=gpus,
        gpu_usd_per_hour=_given(gpu_usd_per_hour) or _rent(price, listed),
        purchase_usd=_given(purchase_usd) or _listed(price.purchase_usd, gpus, listed),
        power_watts=_given(power_watts) or _listed(price.power_watts, gpus, f"{listed}; the GPUs' alone"),
        lifetime_years=lifetime_years,
        pue=pue,
        electricity_usd_per_kwh=electricity_usd_per_kwh,
        hosting_usd_per_month=hosting_usd_per_month,
    )


def _rent(price: GPUPrice, source: str) -> Figure | None:
    low, high = price.rent_low_usd_per_hour, price.rent_high_usd_per_hour
    if low is None or high is None:
        return None
    return between(low, high, "listed", source)


def _listed(value: float | None, gpus: int, source: str) -> Figure | None:
    return None if value is None else exactly(value * gpus, "listed", source)


def _given(value: float | None) -> Figure | None:
    return None if value is None else exactly(value, "assumed", "given")


def _known(figure: Figure | None, machine: Machine, what: str, option: str) -> Figure:
    if figure is None:
        raise InvalidInputError(
            f"the {what} of {machine.name} is unpriced, and none is assumed", hint=f"set {option}"
        )
    return figure
