"""Exact search of so many rows by the index, whole: from questions to scores and ids, unfiltered and filtered."""

import statistics
from typing import Any

import numpy as np

from acceptance import flops, timing
from acceptance.bench import Bench, Figures, Note, SkippedError

DIMENSION, DIMENSION_SMALL = 768, 64
BATCHES = (1, 16, 256)
ROWS_A_DOCUMENT = 10
ALLOWED = 0.1  # of the documents, where a filter is asked for
K = 10
WARM, TIMES = 3, 20
ADDED_AT_ONCE = 100_000
SEED = 7
# The view's rows in fp32, and those it is growing out of.
HOST_BYTES_A_NUMBER = 4 * 2.5


def run(bench: Bench, note: Note, *, rows: int) -> Figures:
    from index.vectors.view import VectorView, ViewOptions

    dimension = DIMENSION_SMALL if bench.small else DIMENSION
    require_room(bench, rows, dimension)
    view = VectorView(ViewOptions(dimension, "cpu" if bench.small else "cuda", "flat16"))
    fill(view, rows, dimension, bench.device)
    while view.maintain():
        pass
    floor = flops.exact_search_bytes(rows, dimension) / float(bench.machine["copy_bytes_per_second"])
    figures: Figures = {"rows": rows, "dimension": dimension, "floor_ms": 1e3 * floor, "batches": []}
    chance = np.random.default_rng(SEED)
    allowed = chance.random(-(-rows // ROWS_A_DOCUMENT)) < ALLOWED
    allowed.setflags(write=False)
    for batch in BATCHES:
        queries = unit_rows(batch, dimension, "cpu", SEED + batch)
        found = {
            "batch": batch,
            "ms": _median_ms(lambda q=queries: view.search(q, K), bench),
            "filtered_ms": _median_ms(lambda q=queries: view.search(q, K, allowed), bench),
            "device_ms": _median_ms(lambda q=queries: _on_the_device(view, q), bench),
        }
        figures["batches"].append(found)
        note(figures)
    return figures


def require_room(bench: Bench, rows: int, dimension: int) -> None:
    """Raises: SkippedError."""
    from index.vectors.device_rows import fits
    from local_llm.hardware import available_memory_gib

    needed = rows * dimension * HOST_BYTES_A_NUMBER / 1024**3
    if needed > available_memory_gib():
        raise SkippedError(f"{available_memory_gib():.0f} GiB of memory are free; {needed:.0f} are needed")
    if not fits(bench.device, rows, dimension):
        raise SkippedError(f"the index would not put {rows:,} rows of {dimension} on this GPU")


def fill(view: Any, rows: int, dimension: int, device: str) -> None:
    for start in range(0, rows, ADDED_AT_ONCE):
        ids = np.arange(start, min(start + ADDED_AT_ONCE, rows))
        view.add(ids, (ids // ROWS_A_DOCUMENT).astype(np.int32), unit_rows(len(ids), dimension, device, start))


def unit_rows(count: int, dimension: int, device: str, seed: int) -> Any:
    """float32 [count, dimension], of length 1; drawn on the device, which is faster."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    rows = torch.randn(count, dimension, generator=generator, device=device)
    return torch.nn.functional.normalize(rows).cpu().numpy()


def _median_ms(work: Any, bench: Bench) -> float:
    times = 3 if bench.small else TIMES
    return 1e3 * statistics.median(timing.seconds_of(work, bench.device, warm=WARM, times=times))


def _on_the_device(view: Any, queries: Any) -> Any:
    """What of a search the device does: the rest is exact scores of its candidates, on the CPU."""
    rows = view._generation.device_rows
    return rows.candidates(queries, K, None, rows.count)
