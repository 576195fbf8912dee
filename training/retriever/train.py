"""The training itself, by sentence-transformers' trainer; it goes on from its last checkpoint if there is one."""

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from local_llm.fileio import staged_directory, write_json
from training import base_model, checkpoints, lora
from training.checkpoints import STEPS
from training.failures import LossError, StoppedError
from training.quiet import quiet_libraries
from training.reporting import Report
from training.retriever.batches import Row, plan
from training.retriever.choices import Chosen
from training.retriever.data import Data
from training.retriever.encoding import Encoder
from training.retriever.losses import columns, make_loss, prompts
from training.retriever.mining import Gold, Pair
from training.retriever.settings import RetrieverSettings

WEIGHTS = "trained.safetensors"


@dataclass(frozen=True)
class Trained:
    """`seconds`: of the loop, all attempts together. `ended_early`: by --max-seconds."""

    pairs: int
    steps: int
    planned_steps: int
    chosen: Chosen
    losses: tuple[float, ...]
    seconds: float
    ended_early: bool
    device: str
    precision: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def train(
    data: Data,
    pairs: Sequence[Pair],
    folder: Path,
    model_folder: Path,
    provenance: dict[str, Any],
    *,
    report: Report | None = None,
    stop: threading.Event | None = None,
) -> Trained:
    """Trains the encoder on the pairs; `model_folder` holds it when this returns, with `provenance` beside it.

    Checkpoints are in `folder`. Progress counts steps.

    Raises: StoppedError once `stop` is set, the last step in a checkpoint by then; LossError.
    """
    with quiet_libraries():
        import torch
        import transformers

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        settings = data.settings
        chosen = Chosen.of(settings, data.encoder, len(pairs))
        gold = Gold(data.passages)
        rows = [_row(one, data, gold) for one in pairs]
        batches = plan(
            rows,
            batch_size=settings.batch_size,
            epochs=chosen.epochs,
            seed=settings.seed,
            distinct=settings.distinct_batches and settings.loss != "cosine",
        )
        transformers.set_seed(settings.seed)
        encoder = Encoder(data.encoder)
        model, reads = encoder.model, encoder.max_tokens
        model.max_seq_length = min(reads, settings.max_tokens or reads)
        if settings.lora_rank:
            model[0].model = lora.wrap_encoder(model[0].model, settings.lora_rank)
        checkpoint = checkpoints.newest(folder / STEPS)
        clock = _Clock(checkpoints.seconds_of(checkpoint) if checkpoint else 0.0)
        callback = _callback(folder / STEPS, clock, settings, report, stop)
        trainer = _trainer(data, pairs, batches, chosen, encoder, folder / STEPS, clock)
        trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if callback.stopped:
            raise StoppedError("the run was told to stop")
        if settings.lora_rank:
            model[0].model = lora.merge(model[0].model)
        model.max_seq_length = reads
        model.prompts = {"query": encoder.recipe.query_prompt, "document": encoder.recipe.document_prompt}
        with staged_directory(model_folder) as staging:
            model.save_pretrained(str(staging), create_model_card=False)
            write_json(staging / "training.json", provenance)
        losses = tuple(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
        return Trained(
            pairs=len(pairs),
            steps=trainer.state.global_step,
            planned_steps=len(batches),
            chosen=chosen,
            losses=losses,
            seconds=round(clock.seconds(), 3),
            ended_early=trainer.state.global_step < len(batches),
            device=trainer.args.device.type,
            precision="bfloat16" if trainer.args.bf16 else "float32",
        )


class _Clock:
    """Seconds of training, earlier attempts included."""

    def __init__(self, before: float):
        self._before, self._started = before, time.monotonic()

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started


def _row(pair: Pair, data: Data, gold: Gold) -> Row:
    texts = frozenset(gold.text_of[number] for number in (pair.positive, *pair.negatives))
    return Row(texts, gold.of(data.questions[pair.question]))


def _trainer(
    data: Data,
    pairs: Sequence[Pair],
    batches: list[list[int]],
    chosen: Chosen,
    encoder: Encoder,
    output: Path,
    clock: _Clock,
) -> Any:
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainingArguments
    from transformers import PrinterCallback

    settings = data.settings
    table = columns(settings.loss, pairs, data.questions, data.passages)
    gpu = torch.cuda.is_available()
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(output),
        num_train_epochs=1,  # all epochs are in the plan
        per_device_train_batch_size=settings.batch_size,
        learning_rate=chosen.learning_rate,
        seed=settings.seed,
        prompts=prompts(list(table), encoder.recipe.query_prompt, encoder.recipe.document_prompt),
        batch_sampler=_planned(batches),
        use_cpu=not gpu,
        bf16=base_model.compute_precision() == "bf16",
        dataloader_num_workers=0,
        dataloader_pin_memory=gpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # the callback says when
        report_to="none",
        disable_tqdm=True,
    )
    decay = _decay(len(batches), settings.warmup, settings.max_seconds, clock)
    trainer = _trainer_class()(
        model=encoder.model,
        args=arguments,
        train_dataset=Dataset.from_dict(table),
        loss=make_loss(settings.loss, encoder.model, chosen.temperature),
    )
    trainer.decay = decay
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to the result
    return trainer


def _trainer_class() -> Any:
    from safetensors.torch import load_file, save_file
    from sentence_transformers import SentenceTransformerTrainer
    from torch.optim.lr_scheduler import LambdaLR

    class Trainer(SentenceTransformerTrainer):  # type: ignore[misc]
        """Checkpoints hold what is trained and nothing else; the learning rate follows `decay`."""

        decay: Callable[[int], float]

        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """We write a card of our own, and no rows of the training set into it."""

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:  # noqa: ARG002
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, self.decay)
            self._created_lr_scheduler = True
            return self.lr_scheduler

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            save_file({name: one.detach().contiguous() for name, one in self._trained()}, folder / WEIGHTS)

        def _load_from_checkpoint(self, checkpoint_path: str) -> None:
            weights = load_file(Path(checkpoint_path) / WEIGHTS)
            for name, one in self._trained():
                one.data.copy_(weights[name])

        def _trained(self) -> list[tuple[str, Any]]:
            return [(name, one) for name, one in self.model.named_parameters() if one.requires_grad]

    return Trainer


def _planned(batches: list[list[int]]) -> Callable[..., Any]:
    """A batch sampler that yields the plan."""
    from sentence_transformers.base.sampler import DefaultBatchSampler

    class Planned(DefaultBatchSampler):  # type: ignore[misc]
        def __iter__(self) -> Any:
            return iter(batches)

        def __len__(self) -> int:
            return len(batches)

    return Planned


def _decay(steps: int, warmup: float, max_seconds: float | None, clock: _Clock) -> Callable[[int], float]:
    """Linear up over the warm-up's share of the steps, or of `max_seconds` if these are over before, then linear
    down to zero."""
    one = 1 / max(1, steps)

    def factor(step: int) -> float:
        gone = step * one
        if max_seconds is not None:
            gone = max(gone, clock.seconds() / max_seconds)
        if gone < warmup:
            return min(1.0, (gone + one) / (warmup + one))
        return max(0.0, (1 - gone) / (1 - warmup))

    return factor


def _callback(
    steps_folder: Path,
    clock: _Clock,
    settings: RetrieverSettings,
    report: Report | None,
    stop: threading.Event | None,
) -> Any:
    from transformers import TrainerCallback

    class Run(TrainerCallback):  # type: ignore[misc]
        stopped = False

        def __init__(self) -> None:
            self._saved_at = time.monotonic()

        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            if stop is not None and stop.is_set() and state.global_step < state.max_steps:
                self.stopped = control.should_save = control.should_training_stop = True
            elif settings.max_seconds is not None and clock.seconds() >= settings.max_seconds:
                control.should_training_stop = True
            elif time.monotonic() - self._saved_at >= settings.checkpoint_seconds:
                control.should_save = True

        def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "loss" not in logs:
                return
            if not math.isfinite(logs["loss"]):
                raise LossError(
                    f"the loss became {logs['loss']} at step {state.global_step}", hint="a lower --learning-rate"
                )
            if report is not None:
                report(state.global_step, state.max_steps, f"loss {logs['loss']:.3f}")

        def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            self._saved_at = time.monotonic()
            checkpoints.seal(steps_folder, state.global_step, seconds=clock.seconds())

    return Run()
