"""Documents ranked for questions by their best passage, over a whole collection, exactly."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from local_llm.questions import Question
from training.reporting import Report
from training.retriever.data import Passage
from training.retriever.encoding import Encoder, Vectors

# Documents kept of each ranking: measures look at ten, the report at where the right one went.
DEPTH = 100
# Scores held at a time: 256 MB.
BLOCK_SCORES = 1 << 26


def rank(
    model_path: Path,
    passages: Sequence[Passage],
    questions: Sequence[Question],
    *,
    depth: int = DEPTH,
    device: str = "auto",
    report: Report | None = None,
) -> list[list[str]]:
    """For each question the ids of the `depth` best documents, best first, as the encoder in the folder sees them.

    `device` is "auto", "cpu" or "cuda". Progress counts passages.
    """
    encoder = Encoder(model_path, device)
    vectors = encoder.documents([one.text for one in passages], report)
    queries = encoder.queries([one.text for one in questions])
    return rank_vectors(vectors, [one.document for one in passages], queries, depth=depth)


def rank_vectors(
    vectors: Vectors,
    documents: Sequence[str],
    queries: Vectors,
    *,
    depth: int = DEPTH,
    block_scores: int = BLOCK_SCORES,
) -> list[list[str]]:
    """vectors: float32 [passages, dimension], queries: float32 [questions, dimension], rows of length 1;
    `documents`: of each passage. A document is as near as its nearest passage."""
    names = list(dict.fromkeys(documents))
    numbers = {name: number for number, name in enumerate(names)}
    of_passage = np.array([numbers[name] for name in documents])
    order = np.argsort(of_passage, kind="stable")
    starts = np.flatnonzero(np.diff(of_passage[order], prepend=-1))
    ordered = np.ascontiguousarray(vectors[order])
    block = max(1, block_scores // len(ordered))
    ranked: list[list[str]] = []
    for start in range(0, len(queries), block):
        scores = np.maximum.reduceat(queries[start : start + block] @ ordered.T, starts, axis=1)
        ranked += [[names[number] for number in row] for row in _best(scores, depth)]
    return ranked


def _best(scores: Vectors, depth: int) -> np.ndarray:
    """Columns of the `depth` largest of each row, largest first; of equal ones the first column first."""
    if depth < scores.shape[1]:
        columns = np.sort(np.argpartition(-scores, depth, axis=1)[:, :depth], axis=1)
    else:
        columns = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)
