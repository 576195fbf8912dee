"""Rows on a device: what is hidden there never takes a place among the candidates."""

import gc

import numpy as np
import pytest

from index.vectors.device_rows import FEWEST_CANDIDATES, DeviceRows
from index.vectors.filters import Visible, unlisted
from index.vectors.rows import Vectors

ROWS, DIMENSION = 500, 16


@pytest.fixture
def vectors() -> Vectors:
    rows = np.random.default_rng(3).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def on_device(vectors: Vectors) -> DeviceRows:
    made = DeviceRows("cpu", DIMENSION)
    for start in range(0, ROWS, 100):
        made.append(vectors[start : start + 100])
    return made


def nearest(vectors: Vectors, query: Vectors, among: np.ndarray) -> set[int]:
    scores = vectors[among] @ query
    return set(among[np.argsort(-scores)[:10]].tolist())


def test_rows_struck_out_leave_room_for_those_that_live(on_device: DeviceRows, vectors: Vectors) -> None:
    query = vectors[7]
    order = np.argsort(-(vectors @ query))
    # More than all candidates: unmasked, they would be the only ones.
    on_device.strike_out(order[: 2 * FEWEST_CANDIDATES])
    on_device.strike_out(np.array([ROWS + 5]))  # not there yet: passed over
    found = set(on_device.candidates(query[None], 10, None, ROWS)[0].tolist())
    assert not found & set(order[: 2 * FEWEST_CANDIDATES].tolist())
    assert nearest(vectors, query, order[2 * FEWEST_CANDIDATES :]) <= found


def test_a_filter_and_the_dead_are_both_hidden(on_device: DeviceRows, vectors: Vectors) -> None:
    members = np.arange(0, ROWS, 3)
    visible = Visible(members, np.ones(ROWS, np.bool_), unlisted(ROWS), 1)
    for dead in (np.empty(0, np.int64), np.arange(0, 90)):
        on_device.strike_out(dead)
        found = on_device.candidates(vectors[:5], 10, visible, ROWS)
        living = np.setdiff1d(members, dead)
        for query, line in zip(vectors, found, strict=False):
            assert set(line[line >= 0].tolist()) <= set(living.tolist())
            assert nearest(vectors, query, living) <= set(line.tolist())


def test_a_mask_goes_with_its_filter(on_device: DeviceRows, vectors: Vectors) -> None:
    visible = Visible(np.arange(10), np.ones(ROWS, np.bool_), unlisted(ROWS), 1)
    for _ in range(3):
        on_device.candidates(vectors[:1], 10, visible, ROWS)
    assert len(on_device._masks) == 1
    del visible
    gc.collect()
    assert len(on_device._masks) == 0
