"""Short training runs of our own trainer on a little model, for the parts that compare runs with each other."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance import models
from acceptance.bench import Bench, SkippedError

if TYPE_CHECKING:
    from training.adapter import Outcome
    from training.progress import StepMetrics

ROWS = 64
RANK, ALPHA, LEARNING_RATE, SEED = 8, 16, 5e-3, 7
WIDE, ROW_BY_ROW = 4096, 1  # tokens of a micro-batch: a batch in one pass, or each of its rows alone


def shape(bench: Bench) -> str:
    return "least" if bench.small else "little"


class PausedError(Exception):
    """Raised by a listener to end a run in the middle."""


class Pausing:
    """A listener that ends the run after a step; None: never."""

    def __init__(self, after_step: int | None):
        self._after_step = after_step

    def on_step(self, metrics: "StepMetrics", _total_steps: int) -> None:
        if metrics.step == self._after_step:
            raise PausedError

    def on_epoch(self, metrics: Any, adapter: Path) -> None:
        pass

    def on_checkpoint(self, step: int) -> None:
        pass


def train(
    bench: Bench,
    folder: Path,
    *,
    epochs: int = 1,
    batch_size: int = 8,
    micro_batch_tokens: int = WIDE,
    quantization: str = "none",
    pause_after: int | None = None,
) -> "Outcome":
    """Raises: PausedError if it was told to pause; what training raises."""
    from training.adapter import train_adapter
    from training.loops import Limits
    from training.recipe import Recipe

    deterministic()
    base = models.decoder(bench, shape(bench))
    tokenizer, rows = _rows(base)
    recipe = Recipe(RANK, ALPHA, LEARNING_RATE, epochs=epochs, batch_size=batch_size, seed=SEED)
    return train_adapter(
        base=base, base_name=base.name, tokenizer=tokenizer, rows=rows, validation_rows=(),
        recipe=replace(recipe, quantization=quantization), output=folder, listener=Pausing(pause_after),
        limits=Limits(micro_batch_tokens=micro_batch_tokens, checkpoint_seconds=3600),
    )  # fmt: skip


def losses(folder: Path) -> list[float]:
    from training.progress import RunLog

    return [entry.loss for entry in RunLog(folder).steps()]


def adapter_weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    if one.keys() != other.keys():
        raise ValueError("the adapters have other tensors")
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


def deterministic() -> None:
    """The same numbers in the same order, as far as the kernels know how."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


def fresh(bench: Bench, name: str) -> Path:
    """An empty folder: what an earlier run left would be gone on with."""
    import shutil

    shutil.rmtree(bench.work / name, ignore_errors=True)
    return bench.folder(name)


def has_flash_attention() -> bool:
    from training.base_model import has_flash_attention as found

    return found()


def _rows(base: Path) -> tuple[Any, list[Any]]:
    """Conversations of different lengths that have something to learn: what was asked about is counted up."""
    from training.examples.data import Example, Message
    from training.examples.labels import build_rows, load_tokenizer

    tokenizer = load_tokenizer(base)
    answer: Callable[[int], str] = lambda number: "Aye. " * (number % 7 + 1) + f"It is {number + 1}."  # noqa: E731
    examples = [
        Example(n, (Message("user", f"What follows {n}?", False), Message("assistant", answer(n), True)))
        for n in range(1, ROWS + 1)
    ]
    return tokenizer, build_rows(tokenizer, examples, max_tokens=512, shown_as="acceptance")


def require_gpu_memory(bench: Bench, gib: float) -> None:
    """Raises: SkippedError."""
    if not bench.small and bench.memory_gib < gib:
        raise SkippedError(f"the GPU has {bench.memory_gib:.0f} GiB; {gib:.0f} are needed")
