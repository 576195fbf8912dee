"""What keeps a view fast while it grows and shrinks, in steps between which searches and changes go on."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from index.vectors import brute_force
from index.vectors.brute_force import RowNumbers
from index.vectors.device_rows import DeviceRows, fits
from index.vectors.effort import DEPTHS, LARGER_STEP, MOST_CANDIDATES, K, from_list_ranks, list_ranks, recall
from index.vectors.generation import Generation, Tuning
from index.vectors.inverted_lists import FEWEST_ROWS, InvertedLists, sample_size
from index.vectors.rows import Rows, RowStore, Vectors, capacity_for

# Source: docs/benchmarks.md: 10,000 rows of 384 dimensions are scored in 0.8 ms, with nothing to tune or to lose.
EXACT_UP_TO = 10_000
# Scored by every search, in 25 microseconds; and as many are folded in a step.
FOLDED_ROWS = 256
MOST_DEAD = 0.25
FEWEST_DEAD = 256  # fewer cost nothing worth the copy
GROWTH_TO_TRAIN_AGAIN = 4.0
GROWTH_TO_TUNE_AGAIN = 1.5
# Nobody waits for these: they are done to what no search sees yet.
COPIED_ROWS = 16_384
BUILT_ROWS = 4_096
SAMPLED_QUERIES = 200
MEASURED_QUERIES = 500

Job = Iterator[None]
Publish = Callable[[Generation, RowNumbers | None], None]
Tune = Callable[[Generation], Tuning]


def wants_lists(structure: str, live: int) -> bool:
    return (structure == "ivf" and live >= FEWEST_ROWS) or (structure == "auto" and live > EXACT_UP_TO)


def next_job(
    generation: Generation, structure: str, device: str | None, publish: Publish, tune: Tune
) -> Job | None:
    """The most pressing one, None where nothing is to be done."""
    store, lists = generation.store, generation.lists
    live = len(store.rows) - store.dead
    on_device = generation.device_rows is not None or _wants_device(generation, structure, device)
    wanted = wants_lists(structure, live) and not on_device
    if store.dead >= max(FEWEST_DEAD, MOST_DEAD * len(store.rows)):
        return _compact(generation, wanted, publish, tune)
    if generation.device_rows is None and lists is None and _wants_device(generation, structure, device):
        return _to_device(generation, device)
    if wanted and (lists is None or live > GROWTH_TO_TRAIN_AGAIN * generation.trained_rows):
        return _build(generation, generation.store, None, publish, tune)
    if generation.structure is not None and generation.tail >= FOLDED_ROWS:
        return _fold(generation)
    if lists is not None and lists.count > GROWTH_TO_TUNE_AGAIN * generation.tuning.rows:
        return _tune(generation, tune)
    return None


def _wants_device(generation: Generation, structure: str, device: str | None) -> bool:
    rows = generation.store.rows
    if structure == "flat16":
        return len(rows) > 0
    return (
        device is not None
        and structure == "auto"
        and len(rows) > EXACT_UP_TO
        and fits(device, len(rows), rows.vectors.shape[1])
    )


def _to_device(generation: Generation, device: str | None) -> Job:
    rows = generation.store.rows
    copy = DeviceRows(device or "cpu", rows.vectors.shape[1])
    for start in range(0, len(rows), COPIED_ROWS):
        copy.append(rows.vectors[start : start + COPIED_ROWS])
        yield
    generation.device_rows = copy
    # Those that had died before they were copied; whoever dies from here on is struck out there as well.
    copy.strike_out(np.flatnonzero(~rows.live))


def _fold(generation: Generation) -> Job:
    generation.fold(FOLDED_ROWS)
    yield


def _tune(generation: Generation, tune: Tune) -> Job:
    generation.tuning = tune(generation)
    yield


def _compact(old: Generation, wanted: bool, publish: Publish, tune: Tune) -> Job:
    """Copies the live rows, and builds the lists of the copy."""
    rows = old.store.rows
    kept = rows.living()
    store = RowStore(rows.vectors.shape[1], capacity_for(len(kept)))
    for start in range(0, len(kept), COPIED_ROWS):
        copy_rows(rows, kept[start : start + COPIED_ROWS], store)
        yield
    if wanted:
        yield from _build(old, store, kept, publish, tune)
    else:
        compacted = Generation(store)
        if old.device_rows is not None:
            yield from _to_device(compacted, old.device_rows.device)
        publish(compacted, kept)


def copy_rows(rows: Rows, chosen: RowNumbers, store: RowStore) -> None:
    store.append(rows.ids[chosen], rows.groups[chosen], rows.vectors[chosen])


def _build(old: Generation, store: RowStore, kept: RowNumbers | None, publish: Publish, tune: Tune) -> Job:
    """Lists over the rows of `store`, which is the old one or holds the `kept` rows of it."""
    rows = store.rows
    lists = _trained_lists(old, rows)
    yield
    while lists.count < len(rows):
        lists.append(rows.vectors[lists.count : min(lists.count + BUILT_ROWS, len(rows))])
        yield
    built = Generation(store, lists, trained_rows=len(rows))
    built.tuning = tune(built)
    yield
    publish(built, kept)


def _trained_lists(old: Generation, rows: Rows) -> InvertedLists:
    if old.lists is not None and len(rows) <= GROWTH_TO_TRAIN_AGAIN * old.trained_rows:
        return old.lists.emptied()
    live = rows.living()
    # Seeded, so that the same rows make the same view.
    chosen = np.random.default_rng(len(rows)).choice(live, sample_size(len(live)), replace=False)
    return InvertedLists.trained(rows.vectors[np.sort(chosen)])


# Tuning


def questions_among(rows: Rows) -> Vectors:
    """Rows to ask for where no questions are known."""
    live = rows.living()
    count = min(SAMPLED_QUERIES, len(live))
    return rows.vectors[np.random.default_rng(len(rows)).choice(live, count, replace=False)]


def tuned(generation: Generation, queries: Vectors, source: str, target: float, *, own: bool = False) -> Tuning:
    """The least effort that reaches the target on these queries.

    own: they are rows of the view; that each finds itself does not count.
    """
    lists, rows = generation.lists, generation.store.rows
    queries, skipped = queries[:MEASURED_QUERIES], int(own)
    found = Tuning(generation.tuning.effort, 1.0, len(queries), source, len(rows))
    if lists is None or not len(queries):
        return found
    chosen = rows.living() if generation.store.dead else None
    true = brute_force.nearest(queries, rows.vectors, DEPTHS[-1] + skipped, chosen)[1][:, skipped:]
    places = lists.list_of_row[np.minimum(true, lists.count - 1)]
    ranks = np.where(true < lists.count, list_ranks(queries, lists.centroids, places), 0)
    effort, goal = from_list_ranks(ranks, target), true[:, :K]
    while True:
        trial = Generation(generation.store, lists, replace(found, effort=effort))
        reached = recall(trial.search(queries, K + skipped, None)[1][:, skipped:], goal)
        if reached >= target:
            break
        inside = float(np.mean(ranks[:, :K] < effort.probes[0]))
        if inside - reached > (1 - target) / 4 and effort.candidates < MOST_CANDIDATES:
            effort = effort.with_more_candidates()
        elif effort.probes[0] < lists.lists:
            effort = effort.larger(LARGER_STEP)
        else:
            break
    return replace(found, effort=effort, recall=reached, rows=lists.count)
