"""Only a sealed checkpoint counts, and the log never knows more than it."""

from pathlib import Path

import pytest

from training import checkpoints
from training.examples.labels import IGNORED, Row
from training.plan import Sources, begin, begun
from training.progress import EpochMetrics, RunLog, StepMetrics, best_epoch, should_stop

from .runs import RECIPE


def write(steps: Path, step: int) -> Path:
    folder = checkpoints.folder_of(steps, step)
    folder.mkdir(parents=True)
    (folder / "weights").write_text("w")
    return folder


def test_the_newest_sealed_one_counts_and_the_unsealed_is_deleted(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) is None
    for step in (9, 10):
        write(tmp_path, step)
        checkpoints.seal(tmp_path, step, seconds=step / 2)
    unsealed = write(tmp_path, 11)
    newest = checkpoints.newest(tmp_path)
    assert newest is not None
    assert (checkpoints.step_of(newest), checkpoints.seconds_of(newest)) == (10, 5.0)
    assert not unsealed.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-10"], "the older one was deleted"


def metrics(step: int) -> StepMetrics:
    return StepMetrics(step, step / 3, 1.0 / step, None, 1e-3, 0.5)


def epoch(number: int, valid_loss: float | None) -> EpochMetrics:
    return EpochMetrics(number, 3 * number, 1.0, 0.5, valid_loss, None)


def test_a_log_forgets_what_will_be_done_again_and_a_line_cut_short(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.rewind(0)
    for step in range(1, 7):
        log.add_step(metrics(step))
    log.add_epoch(epoch(1, None))
    log.add_epoch(epoch(2, None))
    with (tmp_path / "steps.jsonl").open("a") as handle:
        handle.write('{"step": 7, "epo')
    log.rewind(4)
    assert log.steps() == [metrics(step) for step in range(1, 5)]
    assert log.epochs() == [epoch(1, None)]


@pytest.mark.parametrize(
    ("losses", "patience", "best", "stop"),
    [
        ([3.0, 2.0, 1.0], 1, 3, False),
        ([3.0, 2.0, 2.5], 1, 2, True),
        ([3.0, 2.0, 2.5], 2, 2, False),
        ([1.0, 2.0, 2.5], 2, 1, True),
        ([1.0, 1.0, 1.0], 0, 1, False),
        ([None, None, None], 1, 3, False),
    ],
)
def test_early_stopping_follows_the_validation_loss(
    losses: list[float | None], patience: int, best: int, stop: bool
) -> None:
    epochs = [epoch(number, loss) for number, loss in enumerate(losses, start=1)]
    assert best_epoch(epochs).epoch == best
    assert should_stop(epochs, patience) is stop


def test_a_run_goes_on_only_with_the_same_base_data_and_rows(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    rows = [Row(1, [1, 2, 3], [IGNORED, 2, 3])]
    sources = Sources.of("b", "d", rows)
    assert begun(folder, sources) is None
    begin(folder, sources, RECIPE)
    (folder / "steps.jsonl").write_text("")
    assert begun(folder, Sources.of("b", "d", rows)) == RECIPE
    for other in (
        Sources.of("B", "d", rows), Sources.of("b", "D", rows), Sources.of("b", "d", [Row(1, [1, 2], [IGNORED, 2])])
    ):  # fmt: skip
        assert begun(folder, other) is None
    begin(folder, sources, RECIPE)
    assert not (folder / "steps.jsonl").exists()


def test_rows_are_counted_up_to_any_step() -> None:
    """20 rows in batches of 8: 8, 16, 20 | 28, 36, 40."""
    assert [RECIPE.rows_trained(step, 20) for step in range(7)] == [0, 8, 16, 20, 28, 36, 40]
