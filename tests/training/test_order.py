"""The order of an epoch: every row once, in batches of like length, the same for the same seed and epoch."""

import random
from itertools import pairwise

from training.order import EpochSampler, epoch_order

LENGTHS = random.Random(0).choices(range(10, 501), k=1003)


def order(epoch: int = 0, seed: int = 1) -> list[int]:
    return epoch_order(LENGTHS, batch_size=8, seed=seed, epoch=epoch)


def padding(indices: list[int]) -> int:
    batches = [indices[start : start + 8] for start in range(0, len(indices), 8)]
    return sum(max(LENGTHS[i] for i in batch) * len(batch) - sum(LENGTHS[i] for i in batch) for batch in batches)


def test_every_row_comes_once() -> None:
    assert sorted(order()) == list(range(1003))


def test_batches_hold_rows_of_like_length() -> None:
    assert padding(order()) < 0.1 * padding(list(range(1003)))


def test_the_order_follows_from_seed_and_epoch() -> None:
    assert order() == order()
    assert order() != order(epoch=1)
    assert order() != order(seed=2)
    sampler = EpochSampler(LENGTHS, batch_size=8, seed=1)
    sampler.set_epoch(1)
    assert list(sampler) == order(epoch=1)
    assert len(sampler) == 1003


def test_long_and_short_batches_are_mixed() -> None:
    """Otherwise an epoch would begin with the easy rows and end with the hard ones."""
    means = [sum(LENGTHS[i] for i in order()[start : start + 8]) / 8 for start in range(0, 1000, 8)]
    rises = sum(one < other for one, other in pairwise(means))
    assert 0.3 < rises / len(means) < 0.7


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    assert sorted(epoch_order([5, 6, 7], batch_size=8, seed=1, epoch=0)) == [0, 1, 2]
