"""What a training run tells while it runs, and the log that survives it."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from local_llm.fileio import write_file

STEPS_LOG = "steps.jsonl"
EPOCHS_LOG = "epochs.jsonl"


@dataclass(frozen=True)
class StepMetrics:
    """One optimiser step. `accuracy`: share of trained tokens that the model ranked first."""

    step: int
    epoch: float
    loss: float
    accuracy: float | None
    learning_rate: float
    grad_norm: float
    reward_accuracy: float | None = None  # method "dpo": share of pairs whose preferred answer scores higher


@dataclass(frozen=True)
class EpochMetrics:
    """The state after an epoch, measured over the whole validation file if there is one."""

    epoch: int  # counted from 1
    step: int
    train_loss: float
    train_accuracy: float | None
    valid_loss: float | None = None
    valid_accuracy: float | None = None


Entry = TypeVar("Entry", StepMetrics, EpochMetrics)


class Listener(Protocol):
    """Hears of a run as it goes. What its methods raise ends the run after a checkpoint has been written."""

    def on_step(self, metrics: StepMetrics, total_steps: int, /) -> None: ...

    def on_epoch(self, metrics: EpochMetrics, adapter: Path, /) -> None:
        """`adapter`: folder that holds the model after the epoch."""

    def on_checkpoint(self, step: int, /) -> None:
        """A crash from now on costs nothing that was trained up to `step`."""


class Silence:
    """The listener of a process that has nobody to tell."""

    def on_step(self, metrics: StepMetrics, total_steps: int, /) -> None:
        pass

    def on_epoch(self, metrics: EpochMetrics, adapter: Path, /) -> None:
        pass

    def on_checkpoint(self, step: int, /) -> None:
        pass


class RunLog:
    """The metrics of all steps and epochs, one JSON line each. A run that goes on drops what it will redo."""

    def __init__(self, folder: Path):
        self._steps = folder / STEPS_LOG
        self._epochs = folder / EPOCHS_LOG

    def rewind(self, step: int) -> None:
        """Forgets what was logged after `step`; a line that a crash cut short as well."""
        steps = [entry for entry in self.steps() if entry.step <= step]
        epochs = [entry for entry in self.epochs() if entry.step <= step]
        _write(self._steps, steps)
        _write(self._epochs, epochs)

    def add_step(self, metrics: StepMetrics) -> None:
        _append(self._steps, metrics)

    def add_epoch(self, metrics: EpochMetrics) -> None:
        _append(self._epochs, metrics)

    def steps(self) -> list[StepMetrics]:
        return list(_read(self._steps, StepMetrics))

    def epochs(self) -> list[EpochMetrics]:
        return list(_read(self._epochs, EpochMetrics))

    def flush(self) -> None:
        """Makes the lines last, so that a checkpoint never knows more than the log."""
        for path in (self._steps, self._epochs):
            if path.exists():
                with path.open("ab") as handle:
                    os.fsync(handle.fileno())


def best_epoch(epochs: list[EpochMetrics]) -> EpochMetrics:
    """The one of the lowest validation loss; the last one where nothing was validated."""
    validated = [entry for entry in epochs if entry.valid_loss is not None]
    return min(validated, key=lambda entry: (entry.valid_loss, entry.epoch)) if validated else epochs[-1]


def should_stop(epochs: list[EpochMetrics], patience: int) -> bool:
    """Whether `patience` epochs have passed since the best one; never for 0."""
    return patience > 0 and bool(epochs) and len(epochs) - best_epoch(epochs).epoch >= patience


def _write(path: Path, entries: Sequence[StepMetrics | EpochMetrics]) -> None:
    write_file(path, "".join(_line(entry) for entry in entries).encode())


def _append(path: Path, entry: StepMetrics | EpochMetrics) -> None:
    with path.open("a", encoding="utf-8") as handle:
        handle.write(_line(entry))


def _line(entry: StepMetrics | EpochMetrics) -> str:
    return json.dumps(asdict(entry)) + "\n"


def _read(path: Path, kind: type[Entry]) -> Iterator[Entry]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield kind(**json.loads(line))
        except ValueError:  # cut short by a crash: nothing follows it
            return
