"""Bytes and machines of collections: worked by hand, and held against the arrays that the index makes."""

import numpy as np
import pytest

from index.vectors.device_rows import DeviceRows
from index.vectors.inverted_lists import InvertedLists, sample_size
from index.vectors.rows import RowStore
from local_llm.errors import InvalidInputError
from local_llm.sizing import passages

MILLION, BILLION = 10**6, 10**9


def unit_rows(count: int, dimension: int) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((count, dimension), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("dimension", [64, 66, 384])
def test_the_bytes_are_those_of_the_index(dimension: int) -> None:
    vectors = unit_rows(1000, dimension)
    store = RowStore(dimension)
    store.append(np.arange(1000), np.zeros(1000, np.int32), vectors)
    assert store.rows.nbytes == passages.row_bytes(1000, dimension)
    lists = InvertedLists.trained(vectors)
    lists.append(vectors)
    of_rows = 1000 * (passages.code_bytes(dimension) + passages.LISTED_BYTES)
    assert lists.nbytes == of_rows + 2 * 4 * dimension * lists.lists
    device = DeviceRows("cpu", dimension)
    device.append(vectors)
    held = device._rows[: device.count].nbytes + device._live[: device.count].nbytes
    assert held == passages.device_bytes(1000, dimension)


@pytest.mark.parametrize("count", [20_000, MILLION, 10 * MILLION, BILLION])
def test_there_are_as_many_lists_as_the_index_makes(count: int) -> None:
    """It draws 64 rows for each list."""
    assert passages.lists_for(count) == sample_size(count) // 64


def test_bytes_by_hand() -> None:
    # 10 M x (4 x 768 + 13) = 10 M x 3,085
    assert passages.row_bytes(10 * MILLION, 768) == 30_850_000_000
    # 4 √10,000,000 = 12,649; the nearest power of 2 is 2^14 = 16,384 (log2 is 13.63)
    assert passages.lists_for(10 * MILLION) == 16_384
    # 768 / 4 numbers a code of half a byte: 96 bytes, and 10; 2 x 4 x 768 x 16,384 of centroids
    assert passages.structure_bytes(10 * MILLION, 768) == 1_060_000_000 + 100_663_296
    assert passages.view_bytes(10 * MILLION, 768) == 32_010_663_296
    # 10 M x (2 x 768 + 1)
    assert passages.device_bytes(10 * MILLION, 768) == 15_370_000_000
    # 1 B: the lists are as many as they can be
    assert passages.lists_for(BILLION) == 65_536
    # 10 M x (1,000 + 1.25 x 4 x 768) = 10 M x 4,840
    found = passages.database_bytes(10 * MILLION, 768, other_bytes_a_passage=1000, vector_page_factor=1.25)
    assert found == 48_400_000_000


def test_the_floor_of_an_exact_search_and_the_machines_it_takes() -> None:
    # 10 M x 768 x 2 B = 15.36 GB at 4.8 TB/s: 3.2 ms
    assert passages.scan_seconds(15.36e9, 4.8e12) == pytest.approx(3.2e-3, abs=1e-15)
    # 100 times as much in 50 ms: 320 / 50 = 6.4
    assert passages.machines_for_scans(1536e9, 4.8e12, 1 / 0.05) == 7
    assert passages.machines_for_scans(1, 4.8e12, 1) == 1
    # 15.37 GB in half of 141 GB; 1,537 GB in 70.5 GB each: 21.8
    assert passages.machines_for_memory(15.37e9, 141e9, 0.5) == 1
    assert passages.machines_for_memory(1537e9, 141e9, 0.5) == 22


def test_hours_of_encoding() -> None:
    # 10 M / 100 a second = 100,000 s
    assert passages.encoding_hours(10 * MILLION, passages_per_second=100) == pytest.approx(27.7777777778)
    assert passages.encoding_hours(10 * MILLION, passages_per_second=100, workers=8) == pytest.approx(3.47222222222)


def test_the_weights_of_encoders() -> None:
    # 6 x 12 x 384² and 12 x 12 x 768²: eight times as many, an eighth of the speed
    assert passages.layer_weights(6, 384) == 10_616_832
    assert passages.layer_weights(12, 768) == 84_934_656
    assert passages.scaled_passages_per_second(100, measured_weights=10_616_832, weights=84_934_656) == 12.5


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: passages.machines_for_memory(1, 0, 0.5), "bytes_a_machine"),
        (lambda: passages.machines_for_memory(1, 1, 1.5), "share"),
        (lambda: passages.scan_seconds(1, 0), "bytes_per_second"),
        (lambda: passages.encoding_hours(1, passages_per_second=0), "passages_per_second"),
        (lambda: passages.lists_for(0), "passages"),
    ],
)
def test_impossible_inputs_are_named(call, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        call()
