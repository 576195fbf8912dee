"""Bytes, machines and hours of a collection of so many passages, with vectors of so many numbers.

The bytes are those of `index/vectors`: tests hold these formulas against the arrays that it makes. n: passages, d:
numbers a vector.
"""

import math

from local_llm.costs.figure import refuse_not_a_share, refuse_not_positive
from local_llm.costs.units import SECONDS_PER_HOUR

FLOAT32_BYTES = 4
FLOAT16_BYTES = 2
# A row's id (int64), document (int32) and whether it lives. Source: index/vectors/rows.py.
ROW_BYTES = 13
# A row's number (int64) and its list's (uint16). Source: index/vectors/inverted_lists.py, and what follows.
LISTED_BYTES = 10
CODE_BITS = 4
LISTS_PER_ROOT = 4
MOST_LISTS = 2**16
ROWS_A_LIST = 64  # to find its centroid by: fewer rows have fewer lists
# Whether a row lives, on a GPU. Source: index/vectors/device_rows.py.
LIVE_BYTES = 1
# Weights of a transformer layer of width w: 4 w² of attention, 8 w² of a feed-forward part four times as wide.
# Source: Vaswani et al. 2017, sections 3.2 and 3.3, without biases and norms.
LAYER_WEIGHTS = 12


def row_bytes(passages: float, dimension: int) -> float:
    """n x (4 d + 13): vectors in float32, scored exactly; every structure keeps them."""
    return passages * (FLOAT32_BYTES * dimension + ROW_BYTES)


def code_bytes(dimension: int) -> int:
    """Of a vector: 4 bits for as many numbers, of at most four, as divide it."""
    numbers = next(size for size in (4, 3, 2, 1) if dimension % size == 0)
    return dimension // numbers * CODE_BITS // 8


def lists_for(passages: float) -> int:
    """The power of two nearest to 4 √n, at most 65,536 and at most n / 64."""
    refuse_not_positive(passages=passages)
    wanted: int = 2 ** round(math.log2(max(1.0, LISTS_PER_ROOT * passages**0.5)))
    return max(1, min(MOST_LISTS, wanted, int(passages) // ROWS_A_LIST))


def structure_bytes(passages: float, dimension: int) -> float:
    """n x (codes + 10) + 2 x 4 d x lists: what inverted lists take besides the rows; centroids are held twice."""
    centroids = 2 * FLOAT32_BYTES * dimension * lists_for(passages)
    return passages * (code_bytes(dimension) + LISTED_BYTES) + centroids


def view_bytes(passages: float, dimension: int) -> float:
    """Rows and structure: in memory, and about as much in a snapshot."""
    return row_bytes(passages, dimension) + structure_bytes(passages, dimension)


def device_bytes(passages: float, dimension: int) -> float:
    """n x (2 d + 1): on a GPU, in float16, beside the rows that the host keeps."""
    return passages * (FLOAT16_BYTES * dimension + LIVE_BYTES)


def database_bytes(
    passages: float, dimension: int, *, other_bytes_a_passage: float, vector_page_factor: float
) -> float:
    """n x (texts, rows and words + factor x 4 d). factor: what whole pages take over what is written on them."""
    return passages * (other_bytes_a_passage + vector_page_factor * FLOAT32_BYTES * dimension)


def scan_seconds(scanned_bytes: float, bytes_per_second: float) -> float:
    """bytes / bandwidth: the floor of an exact search, of however many questions at once."""
    refuse_not_positive(bytes_per_second=bytes_per_second)
    return scanned_bytes / bytes_per_second


def machines_for_memory(needed_bytes: float, bytes_a_machine: float, share: float) -> int:
    """Of GPUs or hosts: ceil(bytes / (bytes of one x the share of it that this may take))."""
    refuse_not_positive(bytes_a_machine=bytes_a_machine)
    refuse_not_a_share(share=share)
    return math.ceil(needed_bytes / (bytes_a_machine * share))


def machines_for_scans(scanned_bytes: float, bytes_per_second: float, scans_per_second: float) -> int:
    """ceil(scans/s x bytes / bandwidth): as many as read all rows so often, each its part of them."""
    return max(1, math.ceil(scans_per_second * scan_seconds(scanned_bytes, bytes_per_second)))


def encoding_hours(passages: float, *, passages_per_second: float, workers: int = 1) -> float:
    """n / (passages/s of one worker x workers) / 3600."""
    refuse_not_positive(passages_per_second=passages_per_second, workers=workers)
    return passages / (passages_per_second * workers) / SECONDS_PER_HOUR


def layer_weights(layers: int, width: int) -> int:
    """layers x 12 w²: what a token is multiplied with, embeddings left out."""
    return layers * LAYER_WEIGHTS * width**2


def scaled_passages_per_second(measured: float, *, measured_weights: float, weights: float) -> float:
    """measured x weights there / weights here: a token takes 2 operations a weight, attention left out.

    Supposes the same share of the processor's peak: an estimate until the other encoder is measured.
    """
    refuse_not_positive(measured=measured, measured_weights=measured_weights, weights=weights)
    return measured * measured_weights / weights
