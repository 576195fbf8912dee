"""TRL's training loops done our way: the one file that knows TRL.

They get rows that are tokenised and labelled already and leave them alone: nothing is truncated, packed or dropped.
A batch goes to the loop whole and is split there into what fits through the model at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_llm.errors import InvalidInputError
from training import base_model, batches, launch, lora
from training.examples.labels import IGNORED, Row
from training.order import EpochSampler
from training.recipe import Recipe
from training.scoring import keeps_logits, labelled_loss, score


@dataclass(frozen=True)
class Limits:
    """What a run may take; speed and memory only, not the result."""

    micro_batch_tokens: int
    checkpoint_seconds: float
    gpu_memory_share: float | None = None


def training_loop(
    base: Path,
    tokenizer: Any,
    rows: Sequence[Any],
    validation_rows: Sequence[Any],
    recipe: Recipe,
    limits: Limits,
    steps_folder: Path,
) -> Any:
    """TRL's trainer for the recipe's method, told to leave our rows alone."""
    from datasets import Dataset
    from transformers import PrinterCallback

    kind, settings = (_preference_trainer, _dpo) if recipe.method == "dpo" else (_supervised_trainer, _sft)
    method_arguments = {} if recipe.beta is None else {"beta": recipe.beta}
    longest = max(row.longest_tokens for row in rows)
    trainer = kind(base_model.has_flash_attention())(
        model=base_model.load(base, recipe),
        args=settings(
            **_arguments(rows, recipe, limits, steps_folder, longest=longest),
            **method_arguments,
        ),
        train_dataset=Dataset.from_list([row.columns() for row in rows]),
        processing_class=tokenizer,
        data_collator=_collator(recipe, _pad_token_id(tokenizer)),
        peft_config=lora.configuration(recipe),
    )
    trainer.prepare_for(recipe, limits, [row.tokens for row in rows], validation_rows)
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to the result
    return trainer


def _arguments(
    rows: Sequence[Any], recipe: Recipe, limits: Limits, output: Path, *, longest: int
) -> dict[str, Any]:
    """What SFT and DPO have in common."""
    import torch

    processes = launch.processes()
    if recipe.batch_size % processes:
        raise InvalidInputError(
            f"batch_size is {recipe.batch_size}; expected a multiple of the {processes} processes that train",
            param="hyperparameters.batch_size",
        )
    return {
        "output_dir": str(output),
        "max_length": None,
        # What is learned. A batch goes to the trainer whole and is split there into what fits.
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.batch_size // processes,
        "gradient_accumulation_steps": 1,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": recipe.warmup_steps(len(rows)),
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        # How fast. Recomputing activations only pays where a single row is longer than a micro-batch should be.
        "gradient_checkpointing": longest > limits.micro_batch_tokens,
        "bf16": base_model.compute_precision() == "bf16",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        # Who hears of it: our callback only, which also says when to write a checkpoint.
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
    }


def _sft(**arguments: Any) -> Any:
    from trl import SFTConfig

    # The rows are ready: no tokenising, no truncating, no dropping.
    return SFTConfig(**arguments, dataset_kwargs={"skip_prepare_dataset": True}, packing=False)


def _dpo(**arguments: Any) -> Any:
    from trl import DPOConfig

    return DPOConfig(**arguments)


def _pad_token_id(tokenizer: Any) -> int:
    """Padding is masked out of attention and loss: any token will do where the tokenizer has none for it."""
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if padding is None:
        raise InvalidInputError("the model's tokenizer has neither a padding nor an end token", param="model")
    return padding


def _collator(recipe: Recipe, pad_token_id: int) -> Any:
    from trl.trainer.dpo_trainer import DataCollatorForPreference
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    class Rows(DataCollatorForLanguageModeling):  # type: ignore[misc]
        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            return batches.pad_right(examples, self.pad_token_id)

    kind = DataCollatorForPreference if recipe.method == "dpo" else Rows
    return kind(pad_token_id=pad_token_id)


class _OurTrainer:
    """What both trainers do our way. Mixed in before TRL's class."""

    rows_seen = 0

    def prepare_for(
        self, recipe: Recipe, limits: Limits, lengths: list[int], validation_rows: Sequence[Any]
    ) -> None:
        self._recipe = recipe
        self._limits = limits
        self._lengths = lengths
        self._validation_rows = validation_rows

    def _get_train_sampler(self, *_: Any) -> Any:
        """An order that follows from seed and epoch, so that a resumed run sees the same rows."""
        return EpochSampler(self._lengths, batch_size=self._recipe.batch_size, seed=self._recipe.seed)

    def _most(self, passes: int) -> int:
        """Of what the processes that train together need: a pass is one of all, in which they add gradients up."""
        if not launch.is_launched():
            return passes
        import torch

        return int(self.accelerator.gather(torch.tensor([passes], device=self.args.device)).max())  # type: ignore[attr-defined]

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None here: an adapter gets its card when it is published."""


def _supervised_trainer(flash: bool) -> Any:
    import torch
    from trl import SFTTrainer

    class Supervised(_OurTrainer, SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
            """The gradients of a whole batch, gathered over the micro-batches that fit."""
            split = batches.split_packed if flash else batches.split
            self.rows_seen += len(inputs["input_ids"])
            self._correct, self._labelled = 0, 0
            loss = torch.zeros((), device=self.args.device)
            parts = list(split(inputs, self._limits.micro_batch_tokens))
            nothing = {**parts[-1], "labels": torch.full_like(parts[-1]["labels"], IGNORED)}
            for part in [*parts, *[nothing] * (self._most(len(parts)) - len(parts))]:
                loss += super().training_step(model, part, num_items_in_batch)
            if self._labelled:
                self._metrics["train"]["mean_token_accuracy"].append(self._correct / self._labelled)
            return loss

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            """TRL scores labelled tokens alone only where Triton is: elsewhere we do, at a third of the time."""
            inner = self.accelerator.unwrap_model(model).get_base_model()
            elsewhere = self.args.device.type == "cuda" or launch.is_launched()
            if elsewhere or self.aux_loss_enabled or not keeps_logits(inner):
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            loss, correct, labelled = labelled_loss(model, inputs)
            self._correct += correct.item()
            self._labelled += labelled.item()
            return loss / num_items_in_batch

        def validate(self) -> tuple[float | None, float | None]:
            """Mean loss and accuracy over all labelled tokens of the validation rows."""
            if not self._validation_rows:
                return None, None
            found = self.score_rows(self.model, self._validation_rows)
            return found.loss, found.accuracy

        def score_rows(self, model: Any, rows: Sequence[Row]) -> Any:
            with self.compute_loss_context_manager():
                return score(
                    model,
                    rows,
                    pad_token_id=self.data_collator.pad_token_id,
                    max_tokens=self._limits.micro_batch_tokens,
                    device=self.args.device,
                )

    return Supervised


def _preference_trainer(_flash: bool) -> Any:
    import torch
    from trl import DPOTrainer

    class Preference(_OurTrainer, DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            """Our rows are tokenised; TRL has no switch to skip this."""
            return dataset

        def training_step(self, model: Any, inputs: dict[str, Any], *_: Any) -> Any:
            loss = torch.zeros((), device=self.args.device)
            pairs = len(inputs["input_ids"]) // 2
            self.rows_seen += pairs
            lengths = inputs["attention_mask"].sum(dim=1)
            longest = torch.maximum(lengths[:pairs], lengths[pairs:]).tolist()
            accuracies = self._metrics["train"]["rewards/accuracies"]
            accuracy = 0.0
            groups = list(self._groups(longest))
            passes = self._most(len(groups))
            for number in range(passes):
                group = groups[min(number, len(groups) - 1)]
                both = group + [pairs + index for index in group]
                part = {name: tensor[both, : max(longest[i] for i in group)] for name, tensor in inputs.items()}
                self._share = len(group) / pairs if number < len(groups) else 0.0
                loss += super().training_step(model, part, None)
                accuracy += self._share * accuracies.pop()  # of these pairs; TRL would take the mean of the means
            accuracies.append(accuracy)
            return loss

        def _groups(self, lengths: Sequence[int]) -> Iterator[list[int]]:
            """Both answers of a pair pass together."""
            return batches.micro_batches([2 * length for length in lengths], self._limits.micro_batch_tokens)

        def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
            result = super().compute_loss(model, inputs, *rest, **named)
            # TRL's is a mean over the pairs it is given: weighted, the parts add up to the mean over the batch.
            return result * self._share if self.model.training else result

        def validate(self) -> tuple[float | None, float | None]:
            """Mean loss over the validation pairs; there is no accuracy of tokens.

            Not by evaluate(): its batches have a fixed number of pairs, however long, and less memory to take would
            not reach it.
            """
            rows = self._validation_rows
            if not rows:
                return None, None
            was_training = self.model.training
            self.model.eval()
            total = 0.0
            for group in self._groups([row.longest_tokens for row in rows]):
                inputs = self.data_collator([rows[index].columns() for index in group])
                loss, *_ = self.prediction_step(self.model, inputs, prediction_loss_only=True)
                total += loss.item() * len(group)
            self.model.train(was_training)
            return total / len(rows), None

    return Preference
