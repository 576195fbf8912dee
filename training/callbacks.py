"""What happens between the steps of a run: log, report, write checkpoints, look at the validation rows."""

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local_llm.fileio import fsync_path
from training import checkpoints, launch
from training.failures import LossError
from training.progress import EpochMetrics, Listener, RunLog, StepMetrics, best_epoch, should_stop
from training.recipe import Recipe

# Several processes that train together write so many checkpoints in a run.
CHECKPOINTS_TOGETHER = 20

Validate = Callable[[], tuple[float | None, float | None]]  # loss and accuracy over the validation rows


def run_callback(
    log: RunLog,
    listener: Listener,
    *,
    steps_folder: Path,
    epochs_folder: Path,
    recipe: Recipe,
    rows: int,
    checkpoint_seconds: float,
    seconds_before: float,
    validate: Validate,
    save: Callable[[Path], None],
) -> Any:
    """`save(folder)` writes the adapter as it is. Call raise_pending() when the trainer has returned."""
    from transformers import TrainerCallback

    per_epoch = recipe.steps_per_epoch(rows)
    total = recipe.steps(rows)

    class Run(TrainerCallback):  # type: ignore[misc]
        """Order of calls: on_step_end, on_log, on_save if a checkpoint was due; then on_epoch_end, on_save.

        An epoch's own work is done once it is logged. A run that goes on from the last step of an epoch whose work
        was not done, because it was killed or told to stop there, begins with it.
        """

        def __init__(self) -> None:
            self._started = self._saved_at = time.monotonic()
            self._pending: BaseException | None = None

        def on_train_begin(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step > 0:
                self._end_epoch(state.global_step, control)

        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            due = time.monotonic() - self._saved_at >= checkpoint_seconds
            if launch.is_launched():  # all processes must come to the same answer, and clocks differ
                due = state.global_step % math.ceil(total / CHECKPOINTS_TOGETHER) == 0
            control.should_save = due

        def on_log(self, _args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "loss" not in logs:  # the summary at the end, or an evaluation
                return
            metrics = _step_metrics(state, logs)
            if not math.isfinite(metrics.loss):
                raise LossError(
                    f"the loss became {metrics.loss} at step {metrics.step}",
                    hint="use a smaller learning rate multiplier",
                    param="hyperparameters.learning_rate_multiplier",
                )
            log.add_step(metrics)
            self._tell(control, lambda: listener.on_step(metrics, total))

        def on_epoch_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            if self._pending is None:
                self._tell(control, lambda: self._end_epoch(state.global_step, control))
                control.should_save = True

        def on_save(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            log.flush()
            self._saved_at = time.monotonic()
            if launch.is_main_process():
                checkpoints.seal(steps_folder, state.global_step, seconds=self.seconds())
            # Not before: a run that goes on from the checkpoint before may find another epoch the best.
            if epochs := log.epochs():
                _keep_only(epochs_folder, {epochs[-1].step, best_epoch(epochs).step})
            self._tell(control, lambda: listener.on_checkpoint(state.global_step))

        def seconds(self) -> float:
            """What training has taken, earlier attempts included."""
            return seconds_before + time.monotonic() - self._started

        def raise_pending(self) -> None:
            if self._pending is not None:
                raise self._pending

        def _tell(self, control: Any, call: Callable[[], None]) -> None:
            """What the listener raises ends the run, but only after its last step is in a checkpoint."""
            if self._pending is not None:
                return
            try:
                call()
            except Exception as error:
                if launch.is_launched():  # the others know nothing of it and would wait for us: all end
                    raise
                self._pending = error
                control.should_save = True
                control.should_training_stop = True

        def _end_epoch(self, step: int, control: Any) -> None:
            if step % per_epoch != 0 or any(entry.step == step for entry in log.epochs()):
                return
            metrics = self._epoch_metrics(step)
            folder = epochs_folder / str(step)
            save(folder)
            for path in (*folder.iterdir(), folder):
                fsync_path(path)
            listener.on_epoch(metrics, folder)
            log.add_epoch(metrics)
            if should_stop(log.epochs(), recipe.early_stopping_epochs):
                control.should_training_stop = True

        def _epoch_metrics(self, step: int) -> EpochMetrics:
            steps = [entry for entry in log.steps() if step - per_epoch < entry.step <= step]
            accuracies = [entry.accuracy for entry in steps if entry.accuracy is not None]
            loss, accuracy = validate()
            return EpochMetrics(
                epoch=step // per_epoch,
                step=step,
                train_loss=sum(entry.loss for entry in steps) / len(steps),
                train_accuracy=sum(accuracies) / len(accuracies) if accuracies else None,
                valid_loss=loss,
                valid_accuracy=accuracy,
            )

    return Run()


def _keep_only(folder: Path, steps: set[int]) -> None:
    for path in folder.iterdir():
        if int(path.name) not in steps:
            shutil.rmtree(path)


def _step_metrics(state: Any, logs: dict[str, Any]) -> StepMetrics:
    return StepMetrics(
        step=state.global_step,
        epoch=logs["epoch"],
        loss=logs["loss"],
        accuracy=logs.get("mean_token_accuracy"),
        learning_rate=logs["learning_rate"],
        grad_norm=logs["grad_norm"],
        reward_accuracy=logs.get("rewards/accuracies"),
    )
