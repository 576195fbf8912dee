"""The figures that sizing reckons with: each with its standing and where it is from."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from local_llm.errors import InvalidInputError
from local_llm.sizing.growth import Line, Power, fit_power, line_through_largest
from local_llm.sizing.passages import FLOAT32_BYTES, layer_weights, scaled_passages_per_second, view_bytes

# measured: here, by the command that `source` names. computed: by the formula that it gives, from figures of the
# other two kinds. input: what whoever asks says, or a data sheet.
Standing = Literal["measured", "computed", "input"]
BENCHMARKS = "docs/benchmarks.md"


@dataclass(frozen=True)
class Given:
    value: float
    standing: Standing
    source: str


# One core of an AMD EPYC, all of them. Source: docs/benchmarks.md, the sections named.
PASSAGES_PER_SECOND = Given(
    100, "measured", f"{BENCHMARKS}, The index: encoding: MiniLM-L6 in int8, passages of 128 tokens, one core"
)
QUESTIONS_PER_SECOND = Given(
    374, "measured", f"{BENCHMARKS}, The index: encoding: sentences, MiniLM-L6 in int8, one core"
)
GATEWAY_SECONDS = Given(233e-6, "measured", f"{BENCHMARKS}, The gateway beside others: the slower machine's")
CHUNK_SECONDS = Given(8.5e-6, "measured", f"{BENCHMARKS}, The gateway beside others: a chunk of a stream")
CONTEXT_SECONDS = Given(
    2.8e-3, "measured", f"{BENCHMARKS}, The gateway beside others: by the clock, taken as processor time at most"
)

# Processor time of a search by words, the median of real questions, at two numbers of passages.
# Source: docs/retrieval.md, What was measured (MedQuAD).
WORDS_MS = line_through_largest([15_000, 70_000], [2.7, 8.7])
# An average question's words occur 30,000 times in 70,000 passages, and a search reads a million at most.
# Source: index/collection/words.py.
WORDS_BOUND_PASSAGES = 1_000_000 * 70_000 / 30_000

# Layers and width of encoders with vectors of so many numbers, as people use them.
# Source: the models' own config.json.
ENCODERS = {384: ("MiniLM-L6", 6, 384), 768: ("bge-base", 12, 768), 1024: ("bge-large", 24, 1024)}
MEASURED_ENCODER = 384


@dataclass(frozen=True)
class Growth:
    """Laws of what `scripts/bench_growth.py` measured with vectors of one dimension. search_ms, building_seconds:
    the power that fits the dimension of most sizes, through the largest size of this one; no_words_ms: a search for
    a word that is nowhere."""

    dimension: int
    largest: int
    other_disk_bytes_a_passage: float
    vector_page_factor: float
    other_memory_bytes: Line
    scanned_bytes_per_second: float
    writing_seconds: Line
    building_seconds: Power
    opening_seconds: Line
    search_ms: Power
    no_words_ms: Line
    text_ms: float

    def words_ms(self, passages: float) -> float:
        """Of a question as long as MedQuAD's: the line of its figures up to a million occurrences, from there on
        what every search by words takes for the documents there are."""
        read = WORDS_MS.at(min(passages, WORDS_BOUND_PASSAGES))
        return read + self.no_words_ms.each * max(0.0, passages - WORDS_BOUND_PASSAGES)

    @property
    def source(self) -> str:
        return f"docs/figures/growth.json, by scripts/bench_growth.py: up to {self.largest:,} passages"


Sizes = Sequence[Mapping[str, Any]]


def growth_of(result: Mapping[str, Any], dimension: int) -> Growth:
    """result: the JSON of scripts/bench_growth.py.

    Raises: InvalidInputError where fewer than two sizes of this dimension have a structure.
    """
    by_dimension: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for one in result["sizes"]:
        if one["structure"] == "ivf":
            by_dimension[one["dimension"]].append(one)
    sizes = by_dimension[dimension]
    if len(sizes) < 2:
        raise InvalidInputError(
            f"{len(sizes)} sizes of {dimension} numbers were measured with a structure; expected two at least",
            hint=f"scripts/bench_growth.py --work FOLDER --dimension {dimension} --passages 30000 100000",
        )
    most = max(by_dimension.values(), key=len)
    last = max(sizes, key=lambda one: one["passages"])
    passages = last["passages"]
    vector_bytes = passages * FLOAT32_BYTES * dimension
    return Growth(
        dimension=dimension,
        largest=passages,
        other_disk_bytes_a_passage=(last["texts_disk_bytes"] + last["words_disk_bytes"]) / passages,
        vector_page_factor=last["vectors_disk_bytes"] / vector_bytes,
        other_memory_bytes=line_through_largest(
            [one["passages"] for one in sizes],
            [one["searched_memory_bytes"] - view_bytes(one["passages"], dimension) for one in sizes],
        ),
        scanned_bytes_per_second=vector_bytes / (last["exact_cpu_ms"] / 1e3),
        writing_seconds=_line(sizes, "writing_cpu_seconds"),
        building_seconds=_power(most, "building_cpu_seconds", last),
        opening_seconds=_line(sizes, "opening_cpu_seconds"),
        search_ms=_power(most, "search_cpu_ms", last),
        no_words_ms=_line(sizes, "no_words_cpu_ms"),
        text_ms=last["text_cpu_ms"],
    )


def _power(most: Sizes, name: str, last: Mapping[str, Any]) -> Power:
    law = fit_power([one["passages"] for one in most], [one[name] for one in most])
    return law.through(last["passages"], last[name])


def _line(sizes: Sizes, name: str) -> Line:
    return line_through_largest([one["passages"] for one in sizes], [one[name] for one in sizes])


def passages_per_second(dimension: int) -> Given | None:
    """Of one core; for another encoder than the measured one by its weights, None where ENCODERS has none."""
    if dimension == MEASURED_ENCODER:
        return PASSAGES_PER_SECOND
    if dimension not in ENCODERS:
        return None
    name, *shape = ENCODERS[dimension]
    there, here = layer_weights(*ENCODERS[MEASURED_ENCODER][1:]), layer_weights(*shape)
    scaled = scaled_passages_per_second(PASSAGES_PER_SECOND.value, measured_weights=there, weights=here)
    return Given(scaled, "computed", f"{PASSAGES_PER_SECOND.value:g}/s x {there:,} / {here:,} weights of {name}")
