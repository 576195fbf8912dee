"""The laws that sizing reckons with: taken from a result by hand."""

from typing import Any

import pytest

from local_llm.errors import InvalidInputError
from local_llm.sizing.measured import WORDS_BOUND_PASSAGES, growth_of
from local_llm.sizing.passages import view_bytes


def size(passages: int, dimension: int, **figures: Any) -> dict[str, Any]:
    """A size whose costs are simple multiples of its passages, but for `figures`."""
    return {
        "passages": passages,
        "dimension": dimension,
        "structure": "ivf",
        "texts_disk_bytes": 700 * passages,
        "words_disk_bytes": 300 * passages,
        "vectors_disk_bytes": 5 * dimension * passages,
        "searched_memory_bytes": view_bytes(passages, dimension) + 3e7 + 200 * passages,
        "exact_cpu_ms": passages / 1e4,
        "writing_cpu_seconds": 1 + passages / 1e4,
        "building_cpu_seconds": passages / 1e4,
        "opening_cpu_seconds": 2 + passages / 1e5,
        "search_cpu_ms": (passages / 1e4) ** 0.5,
        "no_words_cpu_ms": 0.5 + passages / 1e6,
        "text_cpu_ms": 0.2,
        **figures,
    }


RESULT = {
    "sizes": [
        size(10_000, 100, structure="exact", search_cpu_ms=99),
        *(size(passages, 100) for passages in (40_000, 90_000, 160_000)),
        *(size(passages, 200, search_cpu_ms=3) for passages in (40_000, 90_000)),
    ]
}


def test_what_is_taken_from_the_largest_size() -> None:
    growth = growth_of(RESULT, 100)
    assert growth.largest == 160_000
    assert growth.other_disk_bytes_a_passage == 1000
    assert growth.vector_page_factor == pytest.approx(1.25)  # 5 d written over 4 d
    assert growth.other_memory_bytes.at(10**6) == pytest.approx(3e7 + 2e8)
    # 160,000 x 400 bytes in 16 ms
    assert growth.scanned_bytes_per_second == pytest.approx(4e9)


def test_laws_leave_the_size_without_a_structure_out() -> None:
    growth = growth_of(RESULT, 100)
    assert growth.search_ms.at(10**6) == pytest.approx(10)
    assert growth.opening_seconds.at(10**6) == pytest.approx(12)
    assert growth.writing_seconds.each == pytest.approx(1e-4)


def test_a_dimension_of_fewer_sizes_takes_the_power_of_the_one_with_most() -> None:
    """3 ms at 90,000, the square root of the other dimension: 6 ms at four times as many."""
    assert growth_of(RESULT, 200).search_ms.at(360_000) == pytest.approx(6)


def test_words_are_read_up_to_a_million_occurrences() -> None:
    """(8.7 - 2.7) / 55,000 ms a passage up to 2,333,333, where an average question has a million; from there on the
    microsecond a passage that a word takes which is nowhere."""
    growth = growth_of(RESULT, 100)
    assert pytest.approx(2_333_333.33) == WORDS_BOUND_PASSAGES
    assert growth.words_ms(15_000) == pytest.approx(2.7)
    assert growth.words_ms(2_015_000) == pytest.approx(2.7 + 2_000_000 * 6 / 55_000)
    at_bound = 2.7 + (WORDS_BOUND_PASSAGES - 15_000) * 6 / 55_000
    assert growth.words_ms(WORDS_BOUND_PASSAGES + 10**6) == pytest.approx(at_bound + 1)


@pytest.mark.parametrize("dimension", [100, 300])
def test_a_dimension_of_one_size_is_refused(dimension: int) -> None:
    few = {"sizes": RESULT["sizes"][:2]}
    with pytest.raises(InvalidInputError, match=f"sizes of {dimension} numbers") as refused:
        growth_of(few, dimension)
    assert f"--dimension {dimension}" in (refused.value.hint or "")
