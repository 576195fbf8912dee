"""What the index finds on the device is what NumPy finds by sorting every score, whatever a caller may see."""

from typing import Any

import numpy as np

from acceptance.bench import Bench, Figures, Note, UnequalError

ROWS, ROWS_SMALL = 60_000, 3_000
DIMENSION, DIMENSION_SMALL = 768, 64
ROWS_A_DOCUMENT = 5
BATCHES = (1, 16, 64)
SHARES = (None, 0.5, 0.1, 0.01, 0.001, 0.0)
K = 10
TAIL = 100  # rows that came after the last were copied to the device
SEED = 7
# Scores of the same row are computed in two orders of adding up.
TOLERANCE = 1e-5


def run(bench: Bench, note: Note) -> Figures:
    from index.vectors.view import VectorView, ViewOptions

    count, dimension = (ROWS_SMALL, DIMENSION_SMALL) if bench.small else (ROWS, DIMENSION)
    chance = np.random.default_rng(SEED)
    vectors, documents = _unit(chance, count, dimension), np.arange(count, dtype=np.int32) // ROWS_A_DOCUMENT
    view = VectorView(ViewOptions(dimension, "cpu" if bench.small else "cuda", "flat16"))
    covered = count - TAIL
    view.add(np.arange(covered), documents[:covered], vectors[:covered])
    while view.maintain():
        pass
    view.add(np.arange(covered, count), documents[covered:], vectors[covered:])
    dead = chance.choice(count, count // 50, replace=False)
    view.remove(np.sort(dead))
    live = np.ones(count, np.bool_)
    live[dead] = False
    stats, compared, wrong = view.stats(), 0, []
    for share in SHARES:
        allowed = None if share is None else chance.random(int(documents[-1]) + 1) < share
        visible = live if allowed is None else live & allowed[documents]
        for batch in BATCHES:
            queries = _unit(chance, batch, dimension)
            found = view.search(queries, K, allowed)
            wrong += [
                f"{share}, {batch} at once: {problem}" for problem in _problems(found, queries, vectors, visible)
            ]
            compared += batch
    figures: Figures = {
        "rows": count, "tail": stats.tail, "tombstones": stats.tombstones, "structure": stats.structure,
        "questions": compared, "wrong": len(wrong),
    }  # fmt: skip
    note(figures)
    if wrong or stats.structure != "flat16":
        raise UnequalError(f"{stats.structure}: {'; '.join(wrong[:3])}")
    return figures


def _unit(chance: np.random.Generator, count: int, dimension: int) -> Any:
    rows = chance.standard_normal((count, dimension), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _problems(found: Any, queries: Any, vectors: Any, visible: Any) -> list[str]:
    """Where a line is not the best of what may be seen. Rows of equal score may stand in any order."""
    scores = queries @ vectors.T
    scores[:, ~visible] = -np.inf
    problems = []
    wanted = min(K, int(visible.sum()))
    for line, (best, ids) in enumerate(zip(*found, strict=True)):
        there = ids[ids >= 0]
        true = -np.sort(-scores[line])[:wanted]
        if len(there) != wanted or len(set(there.tolist())) != wanted:
            problems.append(f"{len(there)} found instead of {wanted}")
        elif not visible[there].all():
            problems.append("a row that must not be seen")
        elif np.abs(scores[line, there] - true).max(initial=0) > TOLERANCE or not np.allclose(
            best[:wanted], true, atol=TOLERANCE
        ):
            problems.append("not the nearest")
    return problems
