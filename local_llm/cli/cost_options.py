"""What commands of `local-llm cost` are told alike, each group as one parameter of a command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from local_llm.costs.local import Extras
from local_llm.costs.machine import ASSUMED_LIFETIME_YEARS, AVERAGE_PUE, Basis
from local_llm.costs.throughput import Throughput, throughput_of
from local_llm.errors import InvalidInputError

DEFAULT_INPUT_TOKENS, DEFAULT_OUTPUT_TOKENS = 500.0, 300.0

EvidenceFile = Annotated[
    Path | None,
    typer.Option("--evidence", help="What goes before the ledger's evaluations: JSON, as docs/cost.md has it."),
]


@dataclass(frozen=True)
class RequestOptions:
    """A request, without passages."""

    input_tokens: Annotated[float, typer.Option(help="Tokens of a question with all that is said around it.")] = (
        DEFAULT_INPUT_TOKENS
    )
    output_tokens: Annotated[float, typer.Option(help="Tokens of an answer.")] = DEFAULT_OUTPUT_TOKENS
    cached_tokens: Annotated[
        float, typer.Option(help="Tokens of the prompt that the cache holds, here and hosted.")
    ] = 0.0


@dataclass(frozen=True)
class HostedOptions:
    hosted: Annotated[
        list[str] | None, typer.Option("--hosted", help="A hosted model of the price list; may be repeated.")
    ] = None
    batch: Annotated[
        bool, typer.Option("--batch", help="Hosted models at their prices for batches, which take hours.")
    ] = False


@dataclass(frozen=True)
class MachineOptions:
    """As given; None: not."""

    basis: Annotated[Basis, typer.Option(help="What an hour costs: rent, ownership, or the electricity alone.")] = (
        "rent"
    )
    gpu: Annotated[str | None, typer.Option("--gpu", help="A GPU of the price list; default: this machine.")] = None
    gpus: Annotated[
        int | None, typer.Option("--gpus", help="GPUs of the machine; default: those of the engine here, else 1.")
    ] = None
    gpu_usd_per_hour: Annotated[
        float | None, typer.Option("--gpu-usd-per-hour", help="Rent of one GPU; default: price list.")
    ] = None
    purchase_usd: Annotated[float | None, typer.Option(help="Price of the whole machine, for --basis own.")] = None
    power_watts: Annotated[
        float | None, typer.Option(help="Power of the whole machine; default: its GPUs' highest.")
    ] = None
    lifetime_years: Annotated[float, typer.Option(help="Years until the machine is worth nothing.")] = (
        ASSUMED_LIFETIME_YEARS
    )
    pue: Annotated[float, typer.Option("--pue", help="Power of the site over that of its machines; 1 or more.")] = (
        AVERAGE_PUE
    )
    electricity_usd_per_kwh: Annotated[
        float | None, typer.Option("--electricity-usd-per-kwh", help="Price of a kWh.")
    ] = None
    hosting_usd_per_month: Annotated[float, typer.Option(help="Space, cooling and hands for the machine.")] = 0.0


@dataclass(frozen=True)
class RateOptions:
    """Stand in for a throughput that was not measured."""

    prefill_tokens_per_second: Annotated[
        float | None,
        typer.Option("--prefill-tokens-per-second", help="Assumed where nothing was measured: prompts alone."),
    ] = None
    decode_tokens_per_second: Annotated[
        float | None,
        typer.Option("--decode-tokens-per-second", help="Assumed where nothing was measured: answers alone."),
    ] = None

    def throughput(self) -> Throughput | None:
        """None: not given. Raises: InvalidInputError if one of both is, or is no rate."""
        prefill, decode = self.prefill_tokens_per_second, self.decode_tokens_per_second
        if prefill is None and decode is None:
            return None
        if prefill is None or decode is None:
            raise InvalidInputError(
                "one of two rates is given; reading and writing are priced apart",
                hint="set both --prefill-tokens-per-second and --decode-tokens-per-second",
            )
        return throughput_of(prefill_tokens_per_second=prefill, decode_tokens_per_second=decode)


@dataclass(frozen=True)
class ExtraOptions:
    staff_usd_per_month: Annotated[float, typer.Option(help="Staff that it takes to run it.")] = 0.0
    storage_usd_per_month: Annotated[float, typer.Option(help="Storage of models and documents.")] = 0.0
    network_usd_per_month: Annotated[float, typer.Option(help="Network.")] = 0.0

    def extras(self) -> Extras:
        """Raises: InvalidInputError for what is below zero."""
        return Extras(self.staff_usd_per_month, self.storage_usd_per_month, self.network_usd_per_month)


@dataclass(frozen=True)
class SetUpOptions:
    """Of trainings and indexes: what stands in for what was not measured, and what hosts bill."""

    training_hours: Annotated[float | None, typer.Option(help="Assumed, in the place of what was measured.")] = None
    training_tokens: Annotated[float | None, typer.Option(help="The same, in all epochs: what hosts bill.")] = None
    indexing_hours: Annotated[float | None, typer.Option(help="Assumed, in the place of what was measured.")] = None
    indexing_tokens: Annotated[float | None, typer.Option(help="The same: what hosts bill.")] = None
