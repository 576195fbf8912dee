"""The order in which an epoch's rows are trained: shuffled, in batches of rows of like length.

It follows from the seed and the epoch alone, so a run that goes on after a crash sees the rows that the
uninterrupted one would have seen. (The trainer's own grouping draws from the process's random state.)
"""

import random
from collections.abc import Iterator, Sequence

# Rows are sorted by length within windows of so many batches: wide enough that little padding is left,
# narrow enough that batches differ from epoch to epoch.
WINDOW_BATCHES = 16


def epoch_order(lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int) -> list[int]:
    """All indices of `lengths`, each once. A batch that is not full comes last, as it does without grouping."""
    generator = random.Random(f"{seed}:{epoch}")
    shuffled = list(range(len(lengths)))
    generator.shuffle(shuffled)
    window = WINDOW_BATCHES * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), window):
        inside = sorted(shuffled[start : start + window], key=lambda index: lengths[index])
        batches += [inside[first : first + batch_size] for first in range(0, len(inside), batch_size)]
    full = [batch for batch in batches if len(batch) == batch_size]
    generator.shuffle(full)
    short = [batch for batch in batches if len(batch) < batch_size]
    return [index for batch in full + short for index in batch]


class EpochSampler:
    """The sampler that a data loader iterates; its epoch is set by the training loop."""

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int):
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self._lengths, batch_size=self._batch_size, seed=self._seed, epoch=self._epoch))

    def __len__(self) -> int:
        return len(self._lengths)
