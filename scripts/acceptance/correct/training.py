"""Training learns; it ends where it would have ended without a pause; a batch means what its rows mean."""

import contextlib

from acceptance import little_runs
from acceptance.bench import Bench, Figures, Note, UnequalError
from acceptance.little_runs import PausedError

LEARNT = 0.9  # of the first loss at most is left; the least model has least to learn with
# On a CPU the same threads add in the same order. Attention's way back on a GPU does not always.
RESUMED_TOLERANCE = {"cpu": 0.0, "cuda": 2e-3}
# Losses of steps in bf16, as tests/training holds them.
BATCH_TOLERANCE = 0.02


def learns(bench: Bench, note: Note) -> Figures:
    folder = little_runs.fresh(bench, "learns")
    outcome = little_runs.train(bench, folder, epochs=4)
    found = {
        "first_loss": outcome.first_loss,
        "final_loss": outcome.final_loss,
        "left": outcome.final_loss / outcome.first_loss,
        "flash_attention": little_runs.has_flash_attention(),
    }
    note(found)
    if not found["left"] <= LEARNT:
        raise UnequalError(f"the loss went from {outcome.first_loss:.3f} to {outcome.final_loss:.3f}")
    return found


def resumes(bench: Bench, note: Note) -> Figures:
    whole, paused = little_runs.fresh(bench, "whole"), little_runs.fresh(bench, "paused")
    alone = little_runs.train(bench, whole, epochs=2)
    with contextlib.suppress(PausedError):
        little_runs.train(bench, paused, epochs=2, pause_after=3)
    outcome = little_runs.train(bench, paused, epochs=2)
    weights = [little_runs.adapter_weights(one.adapter) for one in (alone, outcome)]
    found = {
        "resumed_at_step": outcome.resumed_at_step,
        "steps": outcome.steps,
        "loss_difference": _largest(little_runs.losses(whole), little_runs.losses(paused)),
        "weight_difference": little_runs.largest_difference(*weights),
    }
    note(found)
    if outcome.resumed_at_step != 3 or max(found["loss_difference"], found["weight_difference"]) > (
        tolerance := RESUMED_TOLERANCE[bench.device]
    ):
        raise UnequalError(f"resumed and uninterrupted differ by more than {tolerance}: {found}")
    return found


def batches(bench: Bench, note: Note) -> Figures:
    """Eight rows in one pass, and the same eight one after the other: the same steps."""
    folders = [little_runs.fresh(bench, name) for name in ("together", "one-by-one")]
    for folder, tokens in zip(folders, (little_runs.WIDE, little_runs.ROW_BY_ROW), strict=True):
        little_runs.train(bench, folder, micro_batch_tokens=tokens)
    losses = [little_runs.losses(folder) for folder in folders]
    found = {"steps": len(losses[0]), "loss_difference": _largest(*losses)}
    note(found)
    if found["loss_difference"] > BATCH_TOLERANCE:
        raise UnequalError(f"losses differ by {found['loss_difference']:.4f}; at most {BATCH_TOLERANCE}")
    return found


def _largest(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
