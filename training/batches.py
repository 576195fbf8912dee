"""Rows to tensors, and batches to what fits through the model at once.

Every micro-batch is padded on the left: answers stand at the end of most rows, so the columns that hold any
trained token are few, and the output layer is computed for those alone.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from training.examples.labels import IGNORED

# Fewer would only take longer: a row passes whole, however long it is.
SMALLEST_MICRO_BATCH_TOKENS = 64


def smaller(max_tokens: int) -> int | None:
    """What to try where memory did not suffice for micro-batches of `max_tokens`; None: nothing is smaller."""
    return max(SMALLEST_MICRO_BATCH_TOKENS, max_tokens // 2) if max_tokens > SMALLEST_MICRO_BATCH_TOKENS else None


def pad_right(rows: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, Any]:
    """A batch as a data loader hands it on: input_ids, labels and attention_mask, int64 of [rows, longest]."""
    from torch.nn.utils.rnn import pad_sequence

    def padded(columns: Sequence[Any], value: int) -> Any:
        return pad_sequence(list(columns), batch_first=True, padding_value=value)

    import torch

    tokens = [torch.as_tensor(row["input_ids"]) for row in rows]
    return {
        "input_ids": padded(tokens, pad_token_id),
        "labels": padded([torch.as_tensor(row["labels"]) for row in rows], IGNORED),
        "attention_mask": padded([torch.ones_like(row) for row in tokens], 0),
    }


def micro_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices of rows of like length, the longest first; rows x longest stays within `max_tokens`, but every
    row passes."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if group and lengths[group[0]] * (len(group) + 1) > max_tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def split(batch: dict[str, Any], max_tokens: int) -> Iterator[dict[str, Any]]:
    """The micro-batches of a batch from pad_right(), padded on the left."""
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    for group in micro_batches(lengths, max_tokens):
        yield pad_left(batch, group, [lengths[index] for index in group])


def split_packed(batch: dict[str, Any], max_tokens: int) -> Iterator[dict[str, Any]]:
    """The micro-batches of a batch, each as one row without padding: position ids start again with each example.

    Attention must be computed per example for it: FlashAttention does so by the position ids.
    """
    import torch

    lengths = batch["attention_mask"].sum(dim=1).tolist()
    for group in _within(lengths, max_tokens):
        tokens = [batch["input_ids"][index, : lengths[index]] for index in group]
        labels = [batch["labels"][index, : lengths[index]].clone() for index in group]
        for label in labels:
            label[0] = IGNORED  # its token follows another example's last one
        yield {
            "input_ids": torch.cat(tokens)[None],
            "labels": torch.cat(labels)[None],
            "position_ids": torch.cat([torch.arange(len(row)) for row in tokens])[None],
        }


def pad_left(batch: dict[str, Any], rows: Sequence[int], lengths: Sequence[int]) -> dict[str, Any]:
    """Some rows of a batch, moved to the right: input_ids, labels, attention_mask, position_ids."""
    import torch

    longest = max(lengths)
    shifted = {}
    for name in ("input_ids", "labels", "attention_mask"):
        columns = batch[name][list(rows), :longest]
        shifted[name] = torch.stack(
            [row.roll(longest - length) for row, length in zip(columns, lengths, strict=True)]
        )
    # The same positions as without padding, also for models whose positions are absolute.
    shifted["position_ids"] = (shifted["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    return shifted


def _within(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices in order, in groups whose lengths add up to at most `max_tokens`, but every row passes."""
    group: list[int] = []
    for index, length in enumerate(lengths):
        if group and sum(lengths[other] for other in group) + length > max_tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
