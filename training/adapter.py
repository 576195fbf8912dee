"""LoRA fine-tuning: the one file that knows TRL and PEFT.

It gets rows that are tokenised and labelled already (training/labels.py) and hands them to TRL untouched:
nothing is truncated, packed or dropped, and that every row was trained is checked at the end.
"""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_llm.errors import InvalidInputError, LocalLLMError
from local_llm.settings import Quantization
from training.hyperparameters import Resolved
from training.labels import Row
from training.quiet import quiet_libraries

StepReport = Callable[[int, int, float], None]  # done steps, total steps, loss of the last one

LOSS_LOG = "loss.jsonl"
# Padded tokens that one forward and backward pass takes: some 2 GiB of activations for a model of 135M
# parameters, 10 GiB for one of 8B. What a batch holds beyond that is accumulated.
MICRO_BATCH_TOKENS = 2048
WARMUP_SHARE = 0.05


@dataclass(frozen=True)
class Recipe:
    """All that decides what is learned, apart from the model and the rows."""

    rank: int
    alpha: int
    learning_rate: float  # the highest one: it rises to it in 5 % of the steps and falls linearly to 0
    epochs: int
    batch_size: int
    seed: int
    quantization: Quantization = "none"
    micro_batch_tokens: int = MICRO_BATCH_TOKENS  # speed and memory only, not the result

    @classmethod
    def build(
        cls,
        resolved: Resolved,
        *,
        rank: int,
        alpha: int,
        learning_rate: float,
        seed: int,
        quantization: Quantization = "none",
    ) -> "Recipe":
        return cls(
            rank=rank,
            alpha=alpha,
            learning_rate=learning_rate * resolved.learning_rate_multiplier,
            epochs=resolved.n_epochs,
            batch_size=resolved.batch_size,
            seed=seed,
            quantization=quantization,
        )

    def micro_batch_size(self, longest_tokens: int) -> int:
        """Rows that pass through the model at once: the largest divisor of the batch that fits."""
        fitting = max(1, self.micro_batch_tokens // longest_tokens)
        return max(
            size for size in range(1, self.batch_size + 1) if self.batch_size % size == 0 and size <= fitting
        )

    def steps(self, rows: int) -> int:
        return self.epochs * math.ceil(rows / self.batch_size)


@dataclass(frozen=True)
class Outcome:
    steps: int
    first_loss: float
    final_loss: float
    tokens: int  # through the model in all epochs, padding not counted
    trained_tokens: int  # of those, the ones with a label
    seconds: float  # of the training loop, without loading
    device: str
    precision: str


def train_adapter(
    *,
    base: Path,
    base_name: str,
    tokenizer: Any,
    rows: Sequence[Row],
    recipe: Recipe,
    output: Path,
    report: StepReport,
) -> Outcome:
    """Trains a LoRA adapter on `base`; leaves adapter_config.json, adapter_model.safetensors and loss.jsonl (one
    line a step: step, epoch, loss, learning_rate, grad_norm) in the folder `output`.

    `report(done_steps, total_steps, loss)` is called after every step; what it raises ends the run.

    Raises: LocalLLMError if the loss is no longer a number, or a row was lost on the way.
    """
    with quiet_libraries():
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        precision = _precision(torch)
        trainer, collator = _trainer(base, tokenizer, rows, recipe, output, precision)
        trainer.add_callback(_progress_callback(output / LOSS_LOG, recipe.steps(len(rows)), report))
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
        _refuse_lost_rows(collator.rows_seen, len(rows) * recipe.epochs)
        _save(trainer.model, output, base_name)
    losses = [json.loads(line)["loss"] for line in (output / LOSS_LOG).read_text().splitlines()]
    return Outcome(
        steps=trainer.state.global_step,
        first_loss=losses[0],
        final_loss=losses[-1],
        tokens=recipe.epochs * sum(len(row.input_ids) for row in rows),
        trained_tokens=recipe.epochs * sum(row.trained_tokens for row in rows),
        seconds=round(seconds, 3),
        device=trainer.args.device.type,
        precision=precision,
    )


def hidden_size(base: Path) -> int:
    """The width of a base model, by which "auto" chooses the learning rate."""
    with quiet_libraries():
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(base, local_files_only=True).get_text_config().hidden_size


def _precision(torch: Any) -> str:
    """bf16 weights under an adapter in fp32: twice as fast as fp32 on a CPU that computes in bf16, as accurate."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def _trainer(
    base: Path, tokenizer: Any, rows: Sequence[Row], recipe: Recipe, output: Path, precision: str
) -> tuple[Any, Any]:
    """TRL's trainer, told to leave our rows alone, and the collator that counts them."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, PrinterCallback
    from trl import SFTTrainer

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=dtype, local_files_only=True, quantization_config=_quantization(recipe, dtype)
    )
    lora = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    collator = _counting_collator(_pad_token_id(tokenizer))
    trainer = SFTTrainer(
        model=model,
        args=_arguments(rows, recipe, output, precision),
        train_dataset=Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in rows]),
        processing_class=tokenizer,
        data_collator=collator,
        peft_config=lora,
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to the result
    return trainer, collator


def _quantization(recipe: Recipe, dtype: Any) -> Any:
    """QLoRA's settings: 4-bit normal floats, quantised once more, computed with in `dtype`.

    Source: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs".
    """
    if recipe.quantization == "none":
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _arguments(rows: Sequence[Row], recipe: Recipe, output: Path, precision: str) -> Any:
    import torch
    from trl import SFTConfig

    longest = max(len(row.input_ids) for row in rows)
    micro_batch_size = recipe.micro_batch_size(longest)
    return SFTConfig(
        output_dir=str(output),
        # The rows are ready: no tokenising, no truncating, no dropping, no packing.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        # What is learned.
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=micro_batch_size,
        gradient_accumulation_steps=recipe.batch_size // micro_batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(WARMUP_SHARE * recipe.steps(len(rows))),
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=recipe.seed,
        data_seed=recipe.seed,
        # How fast. Recomputing activations only pays where a single row is longer than a micro-batch should be.
        train_sampling_strategy="group_by_length",
        gradient_checkpointing=longest > recipe.micro_batch_tokens,
        bf16=precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        # Who hears of it: our callback only.
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
    )


def _pad_token_id(tokenizer: Any) -> int:
    """Padding is masked out of attention and loss: any token will do where the tokenizer has none for it."""
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if padding is None:
        raise InvalidInputError("the model's tokenizer has neither a padding nor an end token", param="model")
    return padding


def _counting_collator(pad_token_id: int) -> Any:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    class CountingCollator(DataCollatorForLanguageModeling):  # type: ignore[misc]
        """Pads rows to a batch and counts them."""

        rows_seen = 0

        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            self.rows_seen += len(examples)
            return super().torch_call(examples)

    return CountingCollator(pad_token_id=pad_token_id)


def _progress_callback(log: Path, total_steps: int, report: StepReport) -> Any:
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        """Writes the loss of every step and passes it on."""

        def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "loss" not in logs:  # the summary at the end
                return
            if not math.isfinite(logs["loss"]):
                raise LocalLLMError(
                    f"the loss became {logs['loss']} at step {state.global_step}",
                    hint="use a smaller learning rate multiplier",
                )
            entry = {key: logs[key] for key in ("epoch", "loss", "learning_rate", "grad_norm")}
            with log.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps({"step": state.global_step, **entry}) + "\n")
            report(state.global_step, total_steps, logs["loss"])

    return Progress()


def _refuse_lost_rows(seen: int, expected: int) -> None:
    if seen != expected:
        raise LocalLLMError(f"{seen} rows were trained; expected {expected}: the training library lost some")


def _save(model: Any, output: Path, base_name: str) -> None:
    # PEFT would write the local path of the base, which is nobody's business.
    model.peft_config["default"].base_model_name_or_path = base_name
    # "auto" looks the base up on a hub to see whether its vocabulary was enlarged (peft#1452); ours never is.
    model.save_pretrained(output, save_embedding_layers=False)
