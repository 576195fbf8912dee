"""A run's metrics as other programs read them."""

import struct
from pathlib import Path

from training.progress import EpochMetrics, StepMetrics
from training.results import TensorBoardLog, result_csv


def step(number: int, reward_accuracy: float | None = None) -> StepMetrics:
    return StepMetrics(number, number / 2, 1.0 / number, 0.25, 1e-3, 0.5, reward_accuracy)


def epoch(number: int, valid_loss: float | None = 0.5) -> EpochMetrics:
    return EpochMetrics(number, 2 * number, 1.0, 0.25, valid_loss, 0.75 if valid_loss else None)


def events(folder: Path) -> list[tuple[str, int, float]]:
    """Tag, step and value of every scalar: records of length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        data, position = path.read_bytes(), 0
        while position < len(data):
            (length,) = struct.unpack_from("<Q", data, position)
            event = Event.FromString(data[position + 12 : position + 12 + length])
            position += length + 16
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return found


def test_the_result_file_has_the_apis_columns() -> None:
    text = result_csv([step(1), step(2), step(3), step(4)], [epoch(1), epoch(2, None)]).decode()
    assert text.splitlines() == [
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy",
        "1,1.00000,0.25000,,",
        "2,0.50000,0.25000,0.50000,0.75000",
        "3,0.33333,0.25000,,",
        "4,0.25000,0.25000,,",
    ]


def test_of_preferences_the_accuracy_is_one_of_pairs() -> None:
    assert result_csv([step(1, reward_accuracy=0.875)], []).decode().splitlines()[1] == "1,1.00000,0.87500,,"


def test_tensorboard_reads_every_step_and_epoch(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, start=0)
    log.add_step(step(1))
    log.add_step(step(2))
    log.add_epoch(epoch(1))
    log.close()
    found = events(tmp_path)
    assert ("train/loss", 2, 0.5) in found
    assert ("valid/loss", 2, 0.5) in found
    assert {tag for tag, _, _ in found} == {
        "train/loss", "train/accuracy", "train/learning_rate", "train/grad_norm", "valid/loss", "valid/accuracy",
    }  # fmt: skip
