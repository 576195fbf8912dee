"""LoRA at the shape of a well-known model, by our trainer and by plain TRL: what a step takes, and the floor."""

import time
from collections.abc import Sequence
from typing import Any

from acceptance import flops, models, timing
from acceptance.bench import Bench, Figures, Note, SkippedError
from acceptance.little_runs import fresh

RANK, ALPHA, LEARNING_RATE, SEED = 16, 32, 2e-4, 7
LABEL_IGNORED = -100
BATCH_ROWS = 4
STEPS, WARM_STEPS = 10, 3
# GiB that 4,096 tokens of the 8B shape take with all their activations kept, and with them computed again: by
# `memory_needed` of training/estimate.py, with its 32 bytes a logit left out where the loss is fused.
KEPT_GIB = {"none": 56.0, "4bit": 46.0}
LEAST_GIB = {"none": 30.0, "4bit": 20.0}


class StepClock:
    """Seconds and lengths of rows of each step. Made a callback where transformers is imported."""

    def __init__(self, device: str):
        self.device = device
        self.seconds: list[float] = []
        self.lengths: list[list[int]] = [[]]
        self._began = time.perf_counter()

    def ended(self) -> None:
        timing.finish(self.device)
        now = time.perf_counter()
        self.seconds.append(now - self._began)
        self._began = now
        self.lengths.append([])

    def attach(self, trainer: Any) -> None:
        """Counts what goes into a training step, and looks at the clock after each optimiser step."""
        from transformers import TrainerCallback

        clock, inner = self, trainer.training_step

        def counted(model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            clock.lengths[-1] += inputs["attention_mask"].sum(dim=1).tolist()
            return inner(model, inputs, *rest, **named)

        class Clock(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *_: Any, **__: Any) -> None:
                clock.ended()

        trainer.training_step = counted
        trainer.add_callback(Clock())


def measure(
    bench: Bench, _note: Note, *, by: str, quantization: str = "none", rows: str = "full", layers: str = "plain",
    activations: str = "auto",
) -> Figures:  # fmt: skip
    """by: "ours" or "trl"; rows: "full" (each as long as the sequence) or "mixed" (of many lengths).

    layers: "plain" or "compiled"; activations: "auto" (kept where they fit) or "recomputed": of ours. Plain TRL
    computes them again, as it comes.
    """
    import torch

    from training.quiet import quiet_libraries
    from training.recipe import Recipe

    shape, sequence = ("least", 64) if bench.small else ("llama-3-8b", 4096)
    micro_batch_tokens = sequence if _kept(bench, quantization, activations) else sequence // 2
    recipe = Recipe(RANK, ALPHA, LEARNING_RATE, epochs=1, batch_size=BATCH_ROWS, seed=SEED)
    recipe = type(recipe)(**{**recipe.to_json(), "quantization": quantization})
    base, data = models.decoder(bench, shape), random_rows(shape, sequence, rows, steps=STEPS)
    folder = fresh(bench, f"lora-{by}")
    with quiet_libraries():
        make = _ours if by == "ours" else _plain_trl
        trainer = make(base, data, recipe, micro_batch_tokens, folder)
        if layers == "compiled":
            for layer in trainer.model.get_base_model().model.layers:
                layer.compile()
        if bench.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        clock = StepClock(bench.device)
        clock.attach(trainer)
        trainer.train()
    figures = told(clock, models.decoder_sizes(shape), float(bench.machine["peak_operations_per_second"]))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    figures |= {
        "shape": shape, "sequence": sequence, "first_loss": losses[0], "final_loss": losses[-1],
        "recomputed": bool(trainer.args.gradient_checkpointing),
        "attention": trainer.model.config._attn_implementation,
        "peak_memory_gib": _peak_gib(bench.device),
    }  # fmt: skip
    return figures


def told(clock: StepClock, model: flops.Decoder, peak: float) -> Figures:
    """Of the steps after the first ones."""
    seconds, lengths = clock.seconds[WARM_STEPS:], clock.lengths[WARM_STEPS : len(clock.seconds)]
    every = [length for step in lengths for length in step]
    floor = flops.lora_training(model, every) / peak
    return {
        "steps": len(seconds),
        "step_seconds": sum(seconds) / len(seconds),
        "floor_seconds": floor / len(seconds),
        "tokens_per_second": sum(every) / sum(seconds),
        "utilisation": floor / sum(seconds),
        "utilisation_without_attention": 4 * model.parameters * sum(every) / peak / sum(seconds),
        "seconds_of_steps": [round(one, 5) for one in clock.seconds],
    }


def random_rows(shape: str, sequence: int, rows: str, *, steps: int) -> list[Any]:
    """Rows of random tokens, all of them trained. "mixed": lengths between a 32nd of the sequence and half of it,
    short ones more often, and as many tokens in all."""
    import numpy as np

    from training.examples.labels import Row

    chance = np.random.default_rng(SEED)
    count, vocabulary = steps * BATCH_ROWS, models.DECODERS[shape]["vocab_size"]
    lengths = [sequence] * count
    if rows == "mixed":
        spread = np.exp(chance.uniform(np.log(max(2, sequence // 32)), np.log(sequence // 2), count))
        lengths = [int(length) for length in spread]
    made = []
    for number, length in enumerate(lengths, start=1):
        ids = chance.integers(3, vocabulary, length).tolist()
        made.append(Row(number, ids, [LABEL_IGNORED, *ids[1:]]))
    return made


def _kept(bench: Bench, quantization: str, activations: str) -> bool:
    """Whether activations are kept rather than computed again. Raises: SkippedError if neither fits."""
    if bench.small:
        return activations == "auto"
    if bench.memory_gib < LEAST_GIB[quantization]:
        raise SkippedError(f"the GPU has {bench.memory_gib:.0f} GiB; {LEAST_GIB[quantization]:.0f} are needed")
    return activations == "auto" and bench.memory_gib >= KEPT_GIB[quantization]


def _ours(base: Any, data: Sequence[Any], recipe: Any, micro_batch_tokens: int, folder: Any) -> Any:
    from training.examples.labels import load_tokenizer
    from training.loops import Limits, training_loop

    limits = Limits(micro_batch_tokens=micro_batch_tokens, checkpoint_seconds=3600)
    return training_loop(base, load_tokenizer(base), data, (), recipe, limits, folder)


def _plain_trl(base: Any, data: Sequence[Any], recipe: Any, _micro_batch_tokens: int, folder: Any) -> Any:
    """SFTTrainer with its own defaults, told only what must be equal: rows, LoRA, batch, learning rate, dtype."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from training import base_model, lora
    from training.examples.labels import load_tokenizer

    trainer = SFTTrainer(
        model=base_model.load(base, recipe),
        args=SFTConfig(
            output_dir=str(folder), dataset_kwargs={"skip_prepare_dataset": True}, max_length=None,
            num_train_epochs=1, per_device_train_batch_size=BATCH_ROWS, learning_rate=LEARNING_RATE,
            lr_scheduler_type="linear", weight_decay=0.0, max_grad_norm=1.0, seed=SEED, logging_steps=1,
            bf16=base_model.compute_precision() == "bf16", use_cpu=not torch.cuda.is_available(),
            report_to="none", disable_tqdm=True, save_strategy="no",
        ),
        train_dataset=Dataset.from_list([row.columns() for row in data]),
        processing_class=load_tokenizer(base),
        peft_config=lora.configuration(recipe),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def _peak_gib(device: str) -> float:
    import torch

    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1024**3, 2)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, 2)
