"""Micro-batches hold every row once, fit, and mean to the model what the rows mean one by one."""

from pathlib import Path
from typing import Any

import pytest

from training.batches import micro_batches, pad_right, split, split_packed
from training.examples.labels import IGNORED, Row
from training.scoring import labelled_loss, score

ROWS = [
    Row(n, list(range(5 + n, 5 + n + length)), [IGNORED] * (length - n) + list(range(5 + length, 5 + n + length)))
    for n, length in enumerate([9, 4, 17, 6, 30, 12], start=1)
]


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)


def batch() -> dict[str, Any]:
    return pad_right([row.columns() for row in ROWS], 0)


def test_every_row_is_in_one_micro_batch_that_fits() -> None:
    lengths = [9, 4, 17, 6, 30, 12]
    groups = list(micro_batches(lengths, 36))
    assert sorted(index for group in groups for index in group) == [0, 1, 2, 3, 4, 5]
    assert [max(lengths[i] for i in group) * len(group) for group in groups] == [30, 34, 27]
    assert [len(group) for group in micro_batches([50, 40], 10)] == [1, 1], "what fits nowhere passes alone"


@pytest.mark.parametrize("cut", [split, split_packed])
@pytest.mark.parametrize("max_tokens", [1, 40, 1000])
def test_a_split_batch_has_the_loss_of_its_rows(model: Any, cut: Any, max_tokens: int) -> None:
    """Padding and neighbours in a packed row must not be seen by attention."""
    import torch

    with torch.no_grad():
        one_by_one = sum(labelled_loss(model, pad_right([row.columns()], 0))[0].item() for row in ROWS)
        parts = [labelled_loss(model, part) for part in cut(batch(), max_tokens)]
    assert sum(part[0].item() for part in parts) == pytest.approx(one_by_one, rel=1e-4)
    assert sum(part[2].item() for part in parts) == sum(row.trained_tokens for row in ROWS)


def test_a_token_that_attention_must_not_see_changes_nothing(model: Any) -> None:
    """The first of two packed rows is another one: the loss of the second stays what it was."""
    import torch

    def loss_of_second(first: Row) -> float:
        parts = list(split_packed(pad_right([first.columns(), ROWS[2].columns()], 0), 1000))
        assert len(parts) == 1
        parts[0]["labels"][:, : first.tokens] = IGNORED
        with torch.no_grad():
            return labelled_loss(model, parts[0])[0].item()

    assert loss_of_second(ROWS[0]) == pytest.approx(loss_of_second(ROWS[3]), rel=1e-5)


def test_the_score_is_that_of_transformers(model: Any) -> None:
    import torch

    with torch.no_grad():
        expected = model(**batch()).loss.item()
    found = score(model, ROWS, pad_token_id=0, max_tokens=40, device="cpu")
    assert found.loss == pytest.approx(expected, rel=1e-4)
    assert found.tokens == sum(row.trained_tokens for row in ROWS)
    assert not model.training
