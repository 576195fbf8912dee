"""What a job's run tells the world as it goes: events, checkpoints after each epoch, TensorBoard."""

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from local_llm.postgresql import StateUnavailableError
from local_llm.state import State
from training import leases
from training.failures import StoppedError
from training.leases import Lease
from training.progress import EpochMetrics, StepMetrics
from training.publishing import Publisher, checkpoint_metrics
from training.recipe import Recipe
from training.results import TensorBoardLog

Report = Callable[[int, int, str], None]  # done and total steps, and a note for people

# Events are rows on disk: one a second tells enough of a run of thousands of steps.
SECONDS_BETWEEN_EVENTS = 1.0
TENSORBOARD = "tensorboard"


class JobListener:
    """Hears of the run of a job that `lease` holds.

    Raises: LeaseLostError once the job is no longer ours, StoppedError once `stop` is set.
    """

    def __init__(
        self,
        state: State,
        lease: Lease,
        publisher: Publisher,
        *,
        recipe: Recipe,
        tensorboard: TensorBoardLog,
        report: Report | None,
        stop: threading.Event,
    ):
        self._state = state
        self._lease = lease
        self._publisher = publisher
        self._recipe = recipe
        self._tensorboard = tensorboard
        self._report = report
        self._stop = stop
        self._last_event = -math.inf

    def on_step(self, metrics: StepMetrics, total_steps: int) -> None:
        self._tensorboard.add_step(metrics)
        if self._report is not None:
            self._report(metrics.step, total_steps, f"loss {metrics.loss:.3f}")
        if metrics.step == total_steps or time.monotonic() - self._last_event >= SECONDS_BETWEEN_EVENTS:
            self._last_event = time.monotonic()
            message = f"Step {metrics.step}/{total_steps}: training loss={metrics.loss:.2f}"
            with suppress(StateUnavailableError):  # one step more or less is not worth the run
                self._event(message, {**_step_data(metrics), "total_steps": total_steps})
        if self._stop.is_set():
            raise StoppedError("the run was told to stop")

    def on_epoch(self, metrics: EpochMetrics, adapter: Path) -> None:
        """After the last epoch there is nothing to publish here: that model is the finished one. Only with early
        stopping it need not be; if it is, the finished one takes the checkpoint's place.
        """
        self._tensorboard.add_epoch(metrics)
        self._event(self._epoch_message(metrics), checkpoint_metrics(metrics))
        if metrics.epoch < self._recipe.epochs or self._recipe.early_stopping_epochs:
            self._publisher.publish_checkpoint(metrics, adapter)

    def on_checkpoint(self, _step: int) -> None:
        with suppress(StateUnavailableError):
            leases.note_progress(self._state, self._lease)

    def _event(self, message: str, data: dict[str, Any]) -> None:
        leases.report_event(self._state, self._lease, message, data=data)

    def _epoch_message(self, metrics: EpochMetrics) -> str:
        message = f"Epoch {metrics.epoch}/{self._recipe.epochs} completed: training loss={metrics.train_loss:.2f}"
        if metrics.valid_loss is not None:
            message += f", validation loss={metrics.valid_loss:.2f}"
        return message


def _step_data(metrics: StepMetrics) -> dict[str, Any]:
    """A step's metrics under the API's names."""
    named = {
        "step": metrics.step,
        "train_loss": metrics.loss,
        "train_mean_token_accuracy": metrics.accuracy,
        "train_reward_accuracy": metrics.reward_accuracy,
    }
    return {name: value for name, value in named.items() if value is not None}
