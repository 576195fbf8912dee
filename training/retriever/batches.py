"""Which rows are trained together, decided before training: a run that goes on later has the same batches."""

import random
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Numbers of texts: those that the row brings, and all that are right for its question."""

    texts: frozenset[int]
    gold: frozenset[int]


def plan(rows: Sequence[Row], *, batch_size: int, epochs: int, seed: int, distinct: bool) -> list[list[int]]:
    """Numbers of rows, batch after batch, through all epochs; each row once in each.

    `distinct`: for losses that take the passages of a batch's other rows as wrong. No row then shares a batch with
    one that brings a passage which is right for its question. What finds no place comes in smaller batches.
    """
    batches = []
    for epoch in range(epochs):
        order = list(range(len(rows)))
        random.Random(f"{seed} {epoch}").shuffle(order)
        batches += _distinct(rows, order, batch_size) if distinct else _plain(order, batch_size)
    return batches


def _plain(order: list[int], batch_size: int) -> list[list[int]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _distinct(rows: Sequence[Row], order: list[int], batch_size: int) -> list[list[int]]:
    batches, waiting = [], order
    while waiting:
        batch: list[int] = []
        texts: set[int] = set()
        gold: set[int] = set()
        left = []
        for at, number in enumerate(waiting):
            if len(batch) == batch_size:
                left += waiting[at:]
                break
            if _clashes(rows[number], texts, gold):
                left.append(number)
                continue
            batch.append(number)
            texts |= rows[number].texts
            gold |= rows[number].gold
        batches.append(batch)
        waiting = left
    return batches


def _clashes(row: Row, texts: AbstractSet[int], gold: AbstractSet[int]) -> bool:
    return not (row.texts.isdisjoint(gold) and row.gold.isdisjoint(texts))
