"""What so many passages take, with vectors of so many numbers: the rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from local_llm.costs.units import SECONDS_PER_HOUR
from local_llm.sizing import measured, passages
from local_llm.sizing.growth import Power
from local_llm.sizing.measured import Given, Growth
from local_llm.sizing.rows import Row, computed


@dataclass(frozen=True)
class Machines:
    """All of it is input. Shares: of a machine's memory that vectors may take. scan_seconds: what one exact search
    may take at most."""

    gpu_bytes: float
    gpu_bytes_per_second: float
    gpu_share: float
    host_bytes: float
    host_share: float
    scan_seconds: float
    worker_passages_per_second: float | None = None
    workers: int = 1


def passage_rows(counts: Sequence[float], growth: Growth, machines: Machines) -> list[Row]:
    """A column for each number of passages, of `growth.dimension` numbers each."""
    return [
        *_bytes(counts, growth),
        *_machines(counts, growth, machines),
        *_seconds(counts, growth),
        *_encoding(counts, growth.dimension, machines),
    ]


def _bytes(counts: Sequence[float], growth: Growth) -> list[Row]:
    d, other, factor = growth.dimension, growth.other_disk_bytes_a_passage, growth.vector_page_factor
    rest = growth.other_memory_bytes
    row = computed(counts)
    return [
        row(
            "disk: database",
            "bytes",
            lambda n: passages.database_bytes(n, d, other_bytes_a_passage=other, vector_page_factor=factor),
            f"n x ({other:,.0f} measured + {factor:.2f} measured x 4 d)",
        ),
        row(
            "disk: snapshot, twice while it is written",
            "bytes",
            lambda n: passages.view_bytes(n, d),
            "as the lists' memory",
        ),
        row("memory: exact, float32", "bytes", lambda n: passages.row_bytes(n, d), "n x (4 d + 13)"),
        row(
            "memory: inverted lists (default)",
            "bytes",
            lambda n: passages.view_bytes(n, d),
            "the same + n x (d / 8 + 10) + 8 d x lists; lists: the power of 2 nearest to 4 √n, at most 65,536",
        ),
        row(
            "memory: of the process",
            "bytes",
            lambda n: passages.view_bytes(n, d) + rest.at(n),
            f"the same + n x {rest.each:,.0f} {_plus(rest.fixed / 1e6)} MB measured",
        ),
        row(
            "memory: while it is compacted",
            "bytes",
            lambda n: 2 * passages.view_bytes(n, d) + rest.at(n),
            "twice the lists' memory + the rest",
        ),
        row("GPU memory: exact, float16", "bytes", lambda n: passages.device_bytes(n, d), "n x (2 d + 1)"),
    ]


def _machines(counts: Sequence[float], growth: Growth, machines: Machines) -> list[Row]:
    row, d = computed(counts), growth.dimension
    rest = growth.other_memory_bytes
    limit = 1 / machines.scan_seconds
    scanned = passages.FLOAT16_BYTES * d

    def floor(n: float) -> float:
        return 1e3 * passages.scan_seconds(n * scanned, machines.gpu_bytes_per_second)

    return [
        row(
            "hosts by memory, compacting",
            "count",
            lambda n: passages.machines_for_memory(
                2 * passages.view_bytes(n, d) + rest.at(n), machines.host_bytes, machines.host_share
            ),
            "ceil(memory while it is compacted / (host's input x share input))",
        ),
        row(
            "GPUs by memory",
            "count",
            lambda n: passages.machines_for_memory(
                passages.device_bytes(n, d), machines.gpu_bytes, machines.gpu_share
            ),
            "ceil(float16 / (GPU's input x share input))",
        ),
        row("exact search on one GPU, floor", "ms", floor, "n x 2 d / bandwidth input"),
        row(
            f"GPUs by bandwidth, {machines.scan_seconds * 1e3:g} ms a search",
            "count",
            lambda n: passages.machines_for_scans(n * scanned, machines.gpu_bytes_per_second, limit),
            "ceil(floor / ms input)",
        ),
    ]


def _seconds(counts: Sequence[float], growth: Growth) -> list[Row]:
    d, row = growth.dimension, computed(counts)
    rate, search, build = growth.scanned_bytes_per_second, growth.search_ms, growth.building_seconds
    opening = growth.opening_seconds
    return [
        row(
            "exact search on one core",
            "ms",
            lambda n: 1e3 * passages.scan_seconds(n * passages.FLOAT32_BYTES * d, rate),
            f"n x 4 d / {rate / 1e9:.1f} GB/s measured",
        ),
        row("search by lists on one core", "ms", search.at, _told(search, growth.largest, "ms")),
        row(
            "search by words on one core",
            "ms",
            growth.words_ms,
            _words_told(growth),
        ),
        row(
            "opening, one core, at least",
            "seconds",
            opening.at,
            f"n x {opening.each * 1e6:.2g} µs {_plus(opening.fixed)} s measured",
        ),
        row(
            "writing, one core",
            "hours",
            lambda n: growth.writing_seconds.at(n) / SECONDS_PER_HOUR,
            f"n x {growth.writing_seconds.each * 1e6:.0f} µs measured",
        ),
        row(
            "building the lists, one core",
            "hours",
            lambda n: build.at(n) / SECONDS_PER_HOUR,
            _told(build, growth.largest, "s"),
        ),
    ]


def _plus(value: float) -> str:
    return f"{'-' if value < 0 else '+'} {abs(value):.2g}"


def _words_told(growth: Growth) -> str:
    line, bound = measured.WORDS_MS, measured.WORDS_BOUND_PASSAGES
    return (
        f"{line.fixed:.2g} ms + {line.each * 1e6:.0f} ns x n measured (docs/retrieval.md), beyond "
        f"{bound / 1e6:.1f} M {growth.no_words_ms.each * 1e6:.2g} ns measured"
    )


def _told(law: Power, size: int, unit: str) -> str:
    return f"{law.at(size):.3g} {unit} measured at {size:,} x (n / {size:,})^{law.exponent:.2f}"


def _encoding(counts: Sequence[float], d: int, machines: Machines) -> list[Row]:
    here = measured.passages_per_second(d)
    rows = [_hours("encoding, one core here", counts, here, 1)]
    if machines.worker_passages_per_second is not None:
        given = Given(machines.worker_passages_per_second, "input", "input")
        rows.append(_hours(f"encoding, {machines.workers} workers", counts, given, machines.workers))
    return rows


def _hours(what: str, counts: Sequence[float], rate: Given | None, workers: int) -> Row:
    if rate is None:
        return Row(what, "hours", (None,) * len(counts), "computed", "not known: --worker-passages-per-second")
    return computed(counts)(
        what,
        "hours",
        lambda n: passages.encoding_hours(n, passages_per_second=rate.value, workers=workers),
        f"n / ({rate.value:.3g}/s {rate.standing} x {workers}) / 3600",
    )
