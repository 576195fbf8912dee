"""Short training runs on the tiny model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.adapter import Outcome, train_adapter
from training.examples.labels import load_tokenizer
from training.loops import Limits
from training.progress import EpochMetrics, StepMetrics
from training.recipe import Recipe

RECIPE = Recipe(rank=8, alpha=16, learning_rate=1e-2, epochs=2, batch_size=8, seed=7)
EVERY_STEP = Limits(micro_batch_tokens=2048, checkpoint_seconds=0)
SELDOM = Limits(micro_batch_tokens=2048, checkpoint_seconds=3600)


@dataclass
class Heard:
    """A listener that remembers, and raises what it is told to."""

    steps: list[tuple[StepMetrics, int]] = field(default_factory=list)
    epochs: list[EpochMetrics] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    raises: Callable[[StepMetrics], None] = lambda metrics: None

    def on_step(self, metrics: StepMetrics, total_steps: int) -> None:
        self.steps.append((metrics, total_steps))
        self.raises(metrics)

    def on_epoch(self, metrics: EpochMetrics, adapter: Path) -> None:
        assert {path.name for path in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
        self.epochs.append(metrics)

    def on_checkpoint(self, step: int) -> None:
        self.checkpoints.append(step)


def train(
    folder: Path,
    model: Path,
    rows: Sequence[Any],
    *,
    recipe: Recipe = RECIPE,
    limits: Limits = SELDOM,
    listener: Heard | None = None,
    validation_rows: Sequence[Any] = (),
) -> Outcome:
    folder.mkdir(exist_ok=True)
    return train_adapter(
        base=model, base_name="tiny", tokenizer=load_tokenizer(model), rows=rows, validation_rows=validation_rows,
        recipe=recipe, limits=limits, output=folder, listener=listener or Heard(),
    )  # fmt: skip


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)
