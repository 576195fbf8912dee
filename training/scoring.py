"""Loss and accuracy of a causal language model on labelled tokens, computed for those tokens only.

The output layer of a small model is a fifth of its work, and most tokens of a chat example are not trained.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from training.batches import pad_right, split
from training.examples.labels import IGNORED, Row


@dataclass(frozen=True)
class Score:
    """Over `tokens` labelled tokens: mean negative log-likelihood in nats, share ranked first."""

    loss: float
    accuracy: float
    tokens: int


def keeps_logits(model: Any) -> bool:
    """Whether the model's forward can compute the logits of chosen columns only."""
    return "logits_to_keep" in inspect.signature(type(model).forward).parameters


def labelled_loss(model: Any, inputs: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Summed loss (differentiable), tokens ranked first, and labelled tokens: three scalars.

    `inputs`: a micro-batch with labels. The model must pass keeps_logits().
    """
    import torch
    from torch.nn.functional import cross_entropy

    labels = inputs["labels"]
    following = labels[:, 1:]  # what the logits of a column predict
    columns = (following != IGNORED).any(dim=0).nonzero().squeeze(1)
    arguments = {name: value for name, value in inputs.items() if name != "labels"}
    logits = model(**arguments, use_cache=False, logits_to_keep=columns).logits
    targets = following[:, columns]
    loss = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    with torch.no_grad():
        correct = (logits.argmax(dim=-1) == targets).sum()
    return loss, correct, (targets != IGNORED).sum()


def score(model: Any, rows: Sequence[Row], *, pad_token_id: int, max_tokens: int, device: Any) -> Score:
    """The model's score over all rows; it is left in the mode (training or not) in which it was."""
    import torch

    was_training = model.training
    model.eval()
    totals = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        for batch in _batches(rows, pad_token_id, max_tokens):
            on_device = {name: value.to(device) for name, value in batch.items()}
            totals += torch.stack([part.double().cpu() for part in labelled_loss(model, on_device)])
    model.train(was_training)
    loss, correct, tokens = totals.tolist()
    return Score(loss / tokens, correct / tokens, int(tokens))


def _batches(rows: Sequence[Row], pad_token_id: int, max_tokens: int) -> Iterator[dict[str, Any]]:
    """All rows in micro-batches; a few hundred rows at a time become tensors."""
    for start in range(0, len(rows), 256):
        part = [{"input_ids": row.input_ids, "labels": row.labels} for row in rows[start : start + 256]]
        yield from split(pad_right(part, pad_token_id), max_tokens)
