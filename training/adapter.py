"""LoRA fine-tuning from rows to an adapter; it goes on from a step checkpoint where there is one.

Rows are tokenised and labelled already (examples/labels.py); that every one was trained is checked at the end.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_llm.errors import LocalLLMError
from training import base_model, checkpoints, launch, lora
from training.callbacks import run_callback
from training.checkpoints import EPOCHS, PROCESS, STEPS
from training.loops import Limits, training_loop
from training.probe import probe_rows
from training.progress import Listener, RunLog, best_epoch, should_stop
from training.quiet import quiet_libraries
from training.recipe import Recipe
from training.scoring import score


@dataclass(frozen=True)
class Outcome:
    adapter: Path  # folder with adapter_config.json and adapter_model.safetensors
    step: int  # after which the adapter was taken
    steps: int
    first_loss: float
    final_loss: float
    tokens: int  # through the model in all epochs, padding not counted
    trained_tokens: int  # of those, the ones with a label
    seconds: float  # of the training loop in all attempts, without loading
    seconds_here: float  # of that, in this attempt
    resumed_at_step: int
    probe_loss_before: float  # on a fixed general text: what the base knew of language at large
    probe_loss_after: float
    peak_memory_bytes: int
    device: str
    precision: str


def train_adapter(
    *,
    base: Path,
    base_name: str,
    tokenizer: Any,
    rows: Sequence[Any],
    validation_rows: Sequence[Any],
    recipe: Recipe,
    limits: Limits,
    output: Path,
    listener: Listener,
) -> Outcome:
    """Trains a LoRA adapter on `base` in the folder `output`, where its log and its checkpoints go as well.

    `rows` are labels.Row for method "supervised", labels.PreferenceRow for "dpo". What the listener raises ends the
    run; the step is in a checkpoint by then.

    Raises: LossError; LocalLLMError if a row was lost on the way; what torch raises when memory ends.
    """
    with quiet_libraries():
        import torch

        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // launch.processes()))
        if limits.gpu_memory_share is not None and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(limits.gpu_memory_share)
        checkpoint = checkpoints.newest(output / STEPS)
        start = checkpoints.step_of(checkpoint) if checkpoint else 0
        seconds_before = checkpoints.seconds_of(checkpoint) if checkpoint else 0.0
        log = RunLog(_own(output))
        log.rewind(start)
        trainer = training_loop(base, tokenizer, rows, validation_rows, recipe, limits, output / STEPS)
        callback = run_callback(
            log,
            listener,
            steps_folder=output / STEPS,
            epochs_folder=_own(output) / EPOCHS,
            recipe=recipe,
            rows=len(rows),
            checkpoint_seconds=limits.checkpoint_seconds,
            seconds_before=seconds_before,
            validate=trainer.validate,
            save=lambda folder: _save(trainer, folder, base_name),
        )
        trainer.add_callback(callback)
        if should_stop(log.epochs(), recipe.early_stopping_epochs):  # an earlier attempt was through, and then died
            trainer.args.num_train_epochs = log.epochs()[-1].epoch
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        seconds = callback.seconds()
        callback.raise_pending()
        end = trainer.state.global_step
        if not launch.is_launched():  # several processes share the rows, and repeat some to have equally many
            _refuse_lost_rows(
                trainer.rows_seen,
                recipe.rows_trained(end, len(rows)) - recipe.rows_trained(start, len(rows)),
            )
        before, after = _probe(trainer, tokenizer, limits)
        memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _peak_resident_bytes()
    losses = [entry.loss for entry in log.steps()]
    best = best_epoch(log.epochs()) if recipe.early_stopping_epochs else log.epochs()[-1]
    epochs = end / recipe.steps_per_epoch(len(rows))
    return Outcome(
        adapter=_own(output) / EPOCHS / str(best.step),
        step=best.step,
        steps=end,
        first_loss=losses[0],
        final_loss=losses[-1],
        tokens=round(epochs * sum(row.tokens for row in rows)),
        trained_tokens=round(epochs * sum(row.trained_tokens for row in rows)),
        seconds=round(seconds, 3),
        seconds_here=round(seconds - seconds_before, 3),
        resumed_at_step=start,
        probe_loss_before=before,
        probe_loss_after=after,
        peak_memory_bytes=memory,
        device=trainer.args.device.type,
        precision=base_model.compute_precision(),
    )


def _own(output: Path) -> Path:
    """Where this process logs: of several that train together, the first in the job's folder itself."""
    if launch.is_main_process():
        return output
    folder = output / f"{PROCESS}{os.environ['RANK']}"
    folder.mkdir(exist_ok=True)
    return folder


def _save(trainer: Any, folder: Path, base_name: str) -> None:
    if trainer.is_fsdp_enabled:
        trainer.save_model(str(folder))  # gathers the shards; all processes must take part
        lora.rename_base(folder, base_name)
    else:
        lora.save(trainer.model, folder, base_name)


def _probe(trainer: Any, tokenizer: Any, limits: Limits) -> tuple[float, float]:
    """Loss of base and adapter on the fixed general text."""
    rows = probe_rows(tokenizer)
    model = trainer.model

    def loss() -> float:
        with trainer.compute_loss_context_manager():
            return score(
                model,
                rows,
                pad_token_id=trainer.data_collator.pad_token_id,
                max_tokens=limits.micro_batch_tokens,
                device=trainer.args.device,
            ).loss

    with lora.without_adapter(model):
        before = loss()
    return before, loss()


def _refuse_lost_rows(seen: int, expected: int) -> None:
    if seen != expected:
        raise LocalLLMError(f"{seen} rows were trained; expected {expected}: the training library lost some")


def _peak_resident_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
