"""A run's metrics for other programs: the API's result file, and TensorBoard's event files."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from training.progress import EpochMetrics, StepMetrics

FILENAME = "step_metrics.csv"
# The columns of the hosted API's result files. With method "dpo" an accuracy is one of pairs.
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


def result_csv(steps: Sequence[StepMetrics], epochs: Sequence[EpochMetrics]) -> bytes:
    """One line a step; the validation columns are filled in at the end of an epoch."""
    validated = {entry.step: entry for entry in epochs}
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in steps:
        epoch = validated.get(entry.step)
        accuracy = entry.accuracy if entry.reward_accuracy is None else entry.reward_accuracy
        valid = (epoch.valid_loss, epoch.valid_accuracy) if epoch else (None, None)
        writer.writerow([entry.step, *(_cell(value) for value in (entry.loss, accuracy, *valid))])
    return text.getvalue().encode()


class TensorBoardLog:
    """Event files in `folder`, written as the run goes. `start`: the step from which it goes on."""

    def __init__(self, folder: Path, *, start: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None, flush_secs=10)

    def add_step(self, metrics: StepMetrics) -> None:
        self._add(
            metrics.step,
            **{
                "train/loss": metrics.loss,
                "train/accuracy": metrics.accuracy,
                "train/reward_accuracy": metrics.reward_accuracy,
                "train/learning_rate": metrics.learning_rate,
                "train/grad_norm": metrics.grad_norm,
            },
        )

    def add_epoch(self, metrics: EpochMetrics) -> None:
        self._add(metrics.step, **{"valid/loss": metrics.valid_loss, "valid/accuracy": metrics.valid_accuracy})

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, **values: float | None) -> None:
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"
