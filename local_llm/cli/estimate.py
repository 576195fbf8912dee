"""local-llm train estimate: what a run will take, before it is begun."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit_json, emit_table
from local_llm.errors import InvalidInputError
from local_llm.hardware import this_hardware
from local_llm.settings import Quantization

if TYPE_CHECKING:
    from training.estimate import Bill, Estimate

GIB = 1024**3
HOSTED_PRICE = "cost.hosted_training_usd_per_million_tokens"


def estimate(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Examples or preferences: a JSONL file in a format of OpenAI.")],
    model: Annotated[str | None, typer.Option(help="Base model; default: the engine's.")] = None,
    epochs: Annotated[str, typer.Option(help="Passes over the file, 1 to 50, or auto.")] = "auto",
    batch_size: Annotated[str, typer.Option(help="Examples a step, 1 to 256, or auto.")] = "auto",
    rank: Annotated[int | None, typer.Option(help="LoRA rank; default: training.rank.")] = None,
    quantization: Annotated[
        Quantization | None, typer.Option(help="4bit: QLoRA; default: training.quantization.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimates steps, memory, hours and money of training on FILE. Nothing is trained.

    Hours come from the newest job that trained the same base on this hardware; without one they are not known.
    """
    from training.estimate import Plan
    from training.estimate import estimate as make_estimate
    from training.hyperparameters import Hyperparameters

    box: CommandContext = context.obj
    training = box.settings.training
    plan = Plan(
        file=file,
        model=model or box.settings.engine.model,
        hyperparameters=Hyperparameters(_whole(epochs, "--epochs"), _whole(batch_size, "--batch-size")),
        rank=training.rank if rank is None else rank,
        quantization=quantization or training.quantization,
    )
    made = make_estimate(box.settings, box.state, box.caller.project_id, plan)
    if as_json:
        emit_json({**made.to_json(), "hardware": this_hardware().to_json()})
        return
    rows = [{"what": what, "estimate": value, "note": note} for what, value, note in _rows(made)]
    emit_table(rows, ["what", "estimate", "note"], as_json=False, empty="")


def _rows(made: "Estimate") -> list[tuple[str, str, str]]:
    counts, memory, resolved = made.counts, made.memory, made.resolved
    return [
        ("examples", f"{counts.examples:,}", f"the longest has {counts.longest_tokens:,} tokens"),
        ("tokens an epoch", f"{counts.tokens:,}", f"{counts.trained_tokens:,} of them trained"),
        ("epochs", f"{resolved.n_epochs}", f"{made.tokens:,} tokens through the model"),
        ("batch size", f"{resolved.batch_size}", f"{made.steps:,} steps"),
        ("trained parameters", f"{made.trainable_parameters:,}", f"LoRA of rank {made.rank} on all linear layers"),
        (
            "memory",
            f"{memory.total_bytes / GIB:.1f} GiB",
            f"estimated: {memory.weights_bytes / GIB:.1f} weights ({_weights(made)}), "
            f"{memory.adapter_bytes / GIB:.1f} adapter, {memory.activations_bytes / GIB:.1f} activations",
        ),
        *_costs(made, made.bill),
    ]


def _costs(made: "Estimate", bill: "Bill") -> list[tuple[str, str, str]]:
    if made.speed is None or bill.hours is None:
        hours = ("hours here", "unknown", f"no job has trained {made.model} like this on {this_hardware()}")
    else:
        rate = f"{made.speed.tokens_per_second:,.0f} tokens/s, measured here by {made.speed.job_id}"
        hours = ("hours here", f"{bill.hours:.2f}", rate)
    return [
        hours,
        ("cost here", _usd(bill.here_usd, "unknown"), "hours x cost.machine_usd_per_hour"),
        ("cost hosted", _usd(bill.hosted_usd, "unpriced"), f"tokens x {HOSTED_PRICE}"),
    ]


def _weights(made: "Estimate") -> str:
    return made.precision if made.quantization == "none" else f"{made.quantization} and {made.precision}"


def _usd(amount: float | None, missing: str) -> str:
    return missing if amount is None else f"${amount:,.4f}"


def _whole(text: str, option: str) -> Any:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise InvalidInputError(f"{option} is {text!r}; expected a whole number or auto") from None
