"""Training speed against plain TRL: the same rows, labels, learning rate and dtype; each of our switches alone.

    python scripts/bench_training.py MODEL_FOLDER TRAINING_FILE

Every run is a process of its own (peak memory is a process's), all variants in turn, several rounds over; what is
reported is the median round, and the ratio to plain TRL in the same round. Plain TRL is SFTTrainer as it comes,
with its default of recomputing activations. Prints a table and one line of JSON.

    checkpointing off   activations are kept, not recomputed
    length order        batches of rows of like length (training/order.py)
    micro-batches       a batch is sorted and split by tokens, padded on the left (training/batches.py)
    labelled only       logits of columns that hold a label (training/scoring.py; on CUDA TRL does so itself)
    ours                training/adapter.py: all of them
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from local_llm import offline

SWITCHES = {
    "plain TRL": (),
    "checkpointing off": ("checkpointing",),
    "length order": ("order",),
    "micro-batches": ("split",),
    "labelled only": ("labelled",),
    "ours": None,
}
RANK, ALPHA, LEARNING_RATE, SEED = 16, 32, 5e-4, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=160, help="the first so many rows of the file")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--micro-batch-tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--variant", choices=SWITCHES, help="run this one here and print its JSON")
    options = parser.parse_args()
    offline.apply()
    if options.variant:
        print(json.dumps(run(options)))
        return
    rounds = [{name: in_a_process(name) for name in SWITCHES} for _ in range(options.rounds)]
    print(json.dumps(report(rounds, options)))


def in_a_process(variant: str) -> dict[str, Any]:
    line = [sys.executable, *sys.argv, "--variant", variant]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr[-3000:])
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"{variant:18} {result['tokens_per_second']:7.0f} tokens/s", file=sys.stderr, flush=True)
    return result


def run(options: argparse.Namespace) -> dict[str, Any]:
    from training.examples.data import read_training_file
    from training.examples.labels import build_rows, load_tokenizer
    from training.quiet import quiet_libraries

    tokenizer = load_tokenizer(options.model)
    data = read_training_file(options.file)
    examples = data.examples[: options.rows]
    rows = build_rows(tokenizer, examples, max_tokens=4096, shown_as=options.file.name)
    switches = SWITCHES[options.variant]
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        train = train_ours if switches is None else train_with_switches
        seconds, losses, memory = train(options, Path(folder), tokenizer, rows, switches)
    tokens, trained = sum(row.tokens for row in rows), sum(row.trained_tokens for row in rows)
    return {
        "seconds": round(seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1),
        "trained_tokens_per_second": round(trained / seconds, 1),
        "peak_memory_mib": memory // 1024**2,
        "mean_loss": round(statistics.fmean(losses), 4),
        "last_loss": round(losses[-1], 4),
        "losses": [round(loss, 4) for loss in losses],
    }


def train_ours(
    options: argparse.Namespace, folder: Path, tokenizer: Any, rows: list[Any], _switches: Any
) -> tuple[float, list[float], int]:
    from training.adapter import train_adapter
    from training.loops import Limits
    from training.progress import RunLog, Silence
    from training.recipe import Recipe

    outcome = train_adapter(
        base=options.model, base_name="base", tokenizer=tokenizer, rows=rows, validation_rows=(),
        recipe=Recipe(RANK, ALPHA, LEARNING_RATE, epochs=1, batch_size=options.batch_size, seed=SEED),
        limits=Limits(micro_batch_tokens=options.micro_batch_tokens, checkpoint_seconds=3600),
        output=folder, listener=Silence(),
    )  # fmt: skip
    return outcome.seconds, [entry.loss for entry in RunLog(folder).steps()], peak_memory()


def train_with_switches(
    options: argparse.Namespace, folder: Path, tokenizer: Any, rows: list[Any], switches: tuple[str, ...]
) -> tuple[float, list[float], int]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PrinterCallback
    from trl import SFTConfig

    from training.base_model import compute_precision
    from training.lora import configuration
    from training.recipe import Recipe

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    recipe = Recipe(RANK, ALPHA, LEARNING_RATE, epochs=1, batch_size=options.batch_size, seed=SEED)
    precision = compute_precision()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    trainer = switched(switches, options, [row.tokens for row in rows])(
        model=AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype, local_files_only=True),
        args=SFTConfig(
            output_dir=str(folder), dataset_kwargs={"skip_prepare_dataset": True}, max_length=None,
            num_train_epochs=1, per_device_train_batch_size=options.batch_size, learning_rate=LEARNING_RATE,
            lr_scheduler_type="linear", warmup_steps=recipe.warmup_steps(len(rows)), weight_decay=0.0,
            max_grad_norm=1.0, seed=SEED, bf16=precision == "bf16", use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(), logging_steps=1, report_to="none", disable_tqdm=True,
            save_strategy="no", **({"gradient_checkpointing": False} if "checkpointing" in switches else {}),
        ),
        train_dataset=Dataset.from_list([row.columns() for row in rows]),
        processing_class=tokenizer,
        peft_config=configuration(recipe),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    return seconds, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], peak_memory()


def switched(switches: tuple[str, ...], options: argparse.Namespace, lengths: list[int]) -> Any:
    """SFTTrainer with one thing done our way."""
    import torch
    from trl import SFTTrainer

    from training import batches
    from training.order import EpochSampler
    from training.scoring import labelled_loss

    class Ordered(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return EpochSampler(lengths, batch_size=options.batch_size, seed=SEED)

    class Split(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            loss = torch.zeros((), device=self.args.device)
            for part in batches.split(inputs, options.micro_batch_tokens):
                loss += super().training_step(model, part, num_items_in_batch)
            return loss

    class Labelled(SFTTrainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, _outputs: Any = False, num_items_in_batch: Any = None
        ) -> Any:
            return labelled_loss(model, inputs)[0] / num_items_in_batch

    by_switch = {"order": Ordered, "split": Split, "labelled": Labelled}
    return next((by_switch[name] for name in switches if name in by_switch), SFTTrainer)


def peak_memory() -> int:
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(rounds: list[dict[str, dict[str, Any]]], options: argparse.Namespace) -> dict[str, Any]:
    from local_llm.hardware import this_hardware

    print(f"{'':18} tokens/s  trained/s  ratio to plain TRL  MiB    mean loss  last loss")
    result: dict[str, Any] = {}
    for name in SWITCHES:
        runs = [one[name] for one in rounds]
        ratios = [one["plain TRL"]["seconds"] / one[name]["seconds"] for one in rounds]
        middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
        result[name] = {
            **middle,
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(r, 3) for r in ratios],
        }
        print(
            f"{name:18} {middle['tokens_per_second']:8.0f} {middle['trained_tokens_per_second']:9.1f}  "
            f"{result[name]['ratio']:6.2f} ({min(ratios):.2f}-{max(ratios):.2f})   {middle['peak_memory_mib']:6}"
            f" {middle['mean_loss']:9.4f} {middle['last_loss']:10.4f}"
        )
    same = zip(result["length order"]["losses"], result["ours"]["losses"], strict=True)
    gap = max(abs(one - other) for one, other in same)
    print(f"largest difference of a step's loss, ours against plain TRL in the same order of rows: {gap:.4f}")
    about = {
        "rows": options.rows,
        "batch_size": options.batch_size,
        "micro_batch_tokens": options.micro_batch_tokens,
    }
    return {"hardware": this_hardware().to_json(), **about, "largest_loss_difference": gap, "variants": result}


if __name__ == "__main__":
    main()
