"""A base held in 4 bits trains, and the adapter that comes of it loads and answers as it did when trained."""

from typing import Any

from acceptance import little_runs, models
from acceptance.bench import Bench, Figures, Note, UnequalError

LEARNT = 0.9
# Loss of one and the same text, computed in bf16 twice.
TOLERANCE = 0.02


def run(bench: Bench, note: Note) -> Figures:
    folder = little_runs.fresh(bench, "four-bits")
    outcome = little_runs.train(bench, folder, epochs=3, quantization="4bit")
    found: Figures = {"first_loss": outcome.first_loss, "final_loss": outcome.final_loss}
    note(found)
    loaded, without = _losses_of_loaded(bench, outcome.adapter)
    found |= {
        "loss_at_the_end_of_training": outcome.probe_loss_after,
        "loss_of_the_loaded": loaded,
        "loss_of_the_base": without,
    }
    note(found)
    if outcome.final_loss > LEARNT * outcome.first_loss:
        raise UnequalError(f"the loss went from {outcome.first_loss:.3f} to {outcome.final_loss:.3f}")
    if abs(loaded - outcome.probe_loss_after) > TOLERANCE or abs(loaded - without) <= TOLERANCE:
        raise UnequalError(f"the loaded adapter is not the trained one: {found}")
    return found


def _losses_of_loaded(bench: Bench, adapter: Any) -> tuple[float, float]:
    """Of the fixed general text, with the adapter and without."""
    import torch

    from training import base_model, lora
    from training.examples.labels import load_tokenizer
    from training.probe import probe_rows
    from training.recipe import Recipe
    from training.scoring import score

    base = models.decoder(bench, little_runs.shape(bench))
    recipe = Recipe(
        little_runs.RANK, little_runs.ALPHA, little_runs.LEARNING_RATE, epochs=1, batch_size=8, seed=0,
        quantization="4bit",
    )  # fmt: skip
    model = lora.with_adapter(base_model.load(base, recipe), adapter)
    tokenizer = load_tokenizer(base)
    rows = probe_rows(tokenizer)
    autocast = torch.autocast(bench.device, dtype=torch.bfloat16, enabled=base_model.compute_precision() == "bf16")

    def loss() -> float:
        with autocast:
            return score(model, rows, pad_token_id=0, max_tokens=little_runs.WIDE, device=bench.device).loss

    adapted = loss()
    with lora.without_adapter(model):
        return adapted, loss()
