"""A run that is killed at any instant ends where one that was left alone ends.

KILLS=20 in the environment kills as often as that; by default the test takes a minute or so.
"""

import multiprocessing
import os
import random
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from training import checkpoints
from training.adapter import Outcome
from training.checkpoints import EPOCHS, STEPS
from training.examples.data import Example, Message
from training.examples.labels import Row, build_rows
from training.progress import RunLog, StepMetrics

from .runs import EVERY_STEP, RECIPE, SELDOM, Heard, train, weights

KILLS = int(os.environ.get("KILLS", "4"))
LONG = replace(RECIPE, epochs=6, batch_size=4)
# The same threads compute the same numbers in the same order, and a checkpoint holds all of them exactly.
TOLERANCE = 0.0


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> list[Row]:
    examples = [
        Example(n, (Message("user", f"Question {n}?", False), Message("assistant", "Aye. " * (n % 7 + 1), True)))
        for n in range(1, 23)
    ]
    return build_rows(tokenizer, examples, max_tokens=200, shown_as="f")


@pytest.fixture(scope="module")
def spawn() -> Any:
    """Starts processes in which torch is imported already, or each kill would cost ten seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "trl", "peft", "datasets", "tests.training.runs"])
    return context.Process


def work(folder: Path, model: Path, rows: list[Row], epochs: int) -> None:
    train(folder, model, rows, recipe=replace(LONG, epochs=epochs), limits=EVERY_STEP)


def optimiser(folder: Path) -> dict[str, Any]:
    import torch

    checkpoint = checkpoints.newest(folder / STEPS)
    assert checkpoint is not None
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    return {f"{number} {name}": value for number, values in state.items() for name, value in values.items()}


def losses(folder: Path) -> list[tuple[int, float, float]]:
    return [(entry.step, entry.loss, entry.learning_rate) for entry in RunLog(folder).steps()]


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


def last_epoch(folder: Path) -> Path:
    return max((folder / EPOCHS).iterdir(), key=lambda path: int(path.name))


def kill_after(process: BaseProcess, seconds: float) -> bool:
    """Whether it was still at work then."""
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        return True
    assert process.exitcode == 0
    return False


@pytest.mark.slow
def test_a_run_killed_at_random_instants_ends_where_an_uninterrupted_one_ends(
    spawn: Any, rows: list[Row], tiny_folder: Path, tmp_path: Path, figures: dict[str, object]
) -> None:
    def start(folder: Path) -> BaseProcess:
        process = spawn(target=work, args=(folder, tiny_folder, rows, LONG.epochs))
        process.start()
        return process

    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (tmp_path / "warm", alone):
        started = time.monotonic()
        assert not kill_after(start(folder), 300)
        whole_seconds = time.monotonic() - started

    generator = random.Random(KILLS)
    resumed_from: list[int] = []
    runs = 1
    while len(resumed_from) < KILLS:
        # While it loads, in the middle of any step, while a checkpoint is written: whenever.
        if kill_after(start(killed), generator.uniform(0.05, 0.8) * whole_seconds):
            checkpoint = checkpoints.newest(killed / STEPS)
            resumed_from.append(checkpoints.step_of(checkpoint) if checkpoint else 0)
        else:  # it was through: once more, from the start
            assert losses(killed) == losses(alone)
            killed, runs = tmp_path / f"killed-{runs}", runs + 1
    assert not kill_after(start(killed), 300)

    assert losses(killed) == losses(alone)
    assert difference(weights(last_epoch(killed)), weights(last_epoch(alone))) <= TOLERANCE
    assert difference(optimiser(killed), optimiser(alone)) <= TOLERANCE
    figures["training runs killed"] = (
        f"{KILLS} times in {runs} runs of {len(losses(alone))} steps; gone on from {resumed_from}"
    )


def test_what_the_listener_raises_is_resumed_from_the_step_it_was_raised_at(
    rows: list[Row], tiny_folder: Path, tmp_path: Path
) -> None:
    """Paused in the middle of an epoch, and again where an epoch ends: nothing is trained twice or left out."""

    def at(step: int) -> Heard:
        def pause(metrics: StepMetrics) -> None:
            if metrics.step == step:
                raise OSError("paused")

        return Heard(raises=pause)

    recipe = replace(LONG, epochs=2)
    alone, folder = tmp_path / "alone", tmp_path / "paused"
    whole = train(alone, tiny_folder, rows, recipe=recipe, limits=SELDOM)
    heard: list[Heard] = []
    for step in (2, 6, 12):
        heard.append(at(step))
        with pytest.raises(OSError, match="paused"):
            train(folder, tiny_folder, rows, recipe=recipe, limits=SELDOM, listener=heard[-1])
    heard.append(Heard())
    outcome: Outcome = train(folder, tiny_folder, rows, recipe=recipe, limits=SELDOM, listener=heard[-1])

    assert [[metrics.step for metrics, _ in one.steps] for one in heard] == [
        [1, 2],
        [3, 4, 5, 6],
        [7, 8, 9, 10, 11, 12],
        [],
    ]
    # The work at the end of an epoch is done by the run that goes on.
    assert [[metrics.step for metrics in one.epochs] for one in heard] == [[], [], [6], [12]]
    assert losses(folder) == losses(alone)
    assert difference(weights(outcome.adapter), weights(whole.adapter)) <= TOLERANCE
    assert outcome.resumed_at_step == 12
    assert outcome.tokens == whole.tokens


def test_a_run_goes_on_with_smaller_micro_batches(rows: list[Row], tiny_folder: Path, tmp_path: Path) -> None:
    """As after memory ran out: another size changes nothing but rounding."""

    def pause(metrics: StepMetrics) -> None:
        raise OSError("paused")

    recipe = replace(LONG, epochs=1)
    alone, folder = tmp_path / "alone", tmp_path / "smaller"
    train(alone, tiny_folder, rows, recipe=recipe)
    with pytest.raises(OSError, match="paused"):
        train(folder, tiny_folder, rows, recipe=recipe, listener=Heard(raises=pause))
    train(folder, tiny_folder, rows, recipe=recipe, limits=replace(SELDOM, micro_batch_tokens=1))
    for (step, loss, rate), (other_step, other_loss, other_rate) in zip(losses(alone), losses(folder), strict=True):
        assert (step, rate) == (other_step, other_rate)
        assert loss == pytest.approx(other_loss, abs=0.02)
