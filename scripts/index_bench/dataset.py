"""The data: real sentence vectors enlarged to any size, attributes, filters, and what an exact search finds.

The generator, seeded and the only one: real sentences stand in documents of up to ten, neighbours of one real
document. With more rows asked for than there are real sentences, further documents are made. A made document
repeats a random real one with each of its sentences moved: x + STEP (y - z), brought back to length 1, where y
and z are two random sentences of one real document, so that the noise is a difference of meaning that occurs
within documents, with the spectrum of the data, not a ball of 384 independent directions. All documents are
shuffled.

What this does to difficulty: little. Of 40,000 rows, HNSW (32 links, construction effort 100) finds 0.926,
0.971 and 0.990 of the test questions' ten nearest with efforts of 32, 64 and 128 where all sentences are real,
and 0.935, 0.973 and 0.991 where half are made from the other half; tenth and eleventh hit lie as far apart
(0.003). The nearest hit is less near (0.72 in place of 0.77 in the median): fewer real sentences answer the
questions. Filters by topic allow regions of the space, as departments' documents do.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

SEED = 20
DOCUMENT_SENTENCES = 10
# The median cosine of a made sentence to its pattern is then 0.80; that of a real sentence to the nearest other of
# 60,000 is 0.79 (a tenth of them below 0.67, a tenth above 0.94).
STEP = 0.65
K = 10
QUESTIONS = 1000
BUCKETS = 1000
TOPICS = 100
TOPICS_ASKED = 16
WINDOWS = 16
# Scores that differ by less are ties: either row is right.
TIE = 1e-5


@dataclass(frozen=True)
class Workload:
    """A kind of search. column None: unfiltered. share: of the rows, allowed by each filter (about, for topics)."""

    name: str
    column: str | None = None
    share: float = 1.0


WORKLOADS = (
    Workload("unfiltered"),
    Workload("50 %", "bucket", 0.5),
    Workload("10 %", "bucket", 0.1),
    Workload("1 %", "bucket", 0.01),
    Workload("0.1 %", "bucket", 0.001),
    Workload("1 % topic", "topic", 0.01),
)


@dataclass(frozen=True)
class Window:
    """A filter: low <= column < high. Half-open, so that high = low + 1 is equality."""

    column: str
    low: int
    high: int


@dataclass(frozen=True)
class Queries:
    """vectors: float32 [queries, 384]; windows: int64 [queries, 2] or None; kth: float32 [queries], the score of
    the exact search's last hit; allowed: int64 [queries], rows that the filter lets through."""

    vectors: np.ndarray
    column: str | None
    windows: np.ndarray | None
    kth: np.ndarray
    allowed: np.ndarray

    def window(self, at: int) -> Window | None:
        if self.column is None or self.windows is None:
            return None
        return Window(self.column, int(self.windows[at, 0]), int(self.windows[at, 1]))


class Dataset:
    """A folder that `make` wrote. Arrays are mapped, not read."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def vectors(self) -> np.ndarray:
        """float32 [rows, 384], rows of length 1."""
        return np.load(self.folder / "vectors.npy", mmap_mode="r")

    @cached_property
    def attributes(self) -> dict[str, np.ndarray]:
        """int64 [rows] each: `document` (ascending), and `bucket` and `topic`, the same throughout a document."""
        with np.load(self.folder / "attributes.npz") as arrays:
            return {name: arrays[name] for name in ("document", "bucket", "topic")}

    def texts(self) -> list[str]:
        """Each row's text: made sentences carry their pattern's."""
        sentences = json.loads((self.folder / "texts.json").read_text())
        with np.load(self.folder / "attributes.npz") as arrays:
            return [sentences[at] for at in arrays["sentence"]]

    def queries(self, workload: Workload, kind: str) -> Queries:
        """kind: "tuning" or "questions"."""
        with np.load(self.folder / "queries.npz") as arrays:
            prefix = f"{workload.name}/{kind}"
            windows = arrays[f"{prefix}/windows"] if workload.column else None
            return Queries(
                arrays[kind], workload.column, windows, arrays[f"{prefix}/kth"], arrays[f"{prefix}/allowed"]
            )

    def batches(self, rows: int) -> Iterator[slice]:
        count = len(self.vectors)
        return (slice(start, min(start + rows, count)) for start in range(0, count, rows))

    def recall(self, queries: Queries, found: list[np.ndarray]) -> float:
        """recall@10 of the rows found for the first queries, ties of the last place counted as right.

        Raises: ValueError for a row that the filter forbids, or one that came twice.
        """
        shares = []
        for at, rows in enumerate(found):
            window = queries.window(at)
            if len(set(rows.tolist())) != len(rows):
                raise ValueError(f"query {at}: a row came twice: {rows}")
            if window is not None:
                values = self.attributes[window.column][rows]
                if ((values < window.low) | (values >= window.high)).any():
                    raise ValueError(f"query {at}: {window} forbids {rows} with {values}")
            scores = self.vectors[rows] @ queries.vectors[at]
            wanted = min(K, int(queries.allowed[at]))
            shares.append(min(1.0, float((scores >= queries.kth[at] - TIE).sum()) / wanted) if wanted else 1.0)
        return float(np.mean(shares))


def make(folder: Path, rows: int, texts: list[str], documents: np.ndarray, vectors: np.ndarray,
         tuning: np.ndarray, questions: np.ndarray) -> Dataset:  # fmt: skip
    """Writes the data of so many rows, unless they are there. The arrays are those of `sentences.Sentences`."""
    done = folder / "done.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(SEED)
        enlarged, sentence, document = enlarge(vectors, documents, rows, rng)
        np.save(folder / "vectors.npy", enlarged)
        (folder / "texts.json").write_text(json.dumps(texts))
        bucket, topic, centres = _attributes(enlarged, document, vectors, rng)
        np.savez(folder / "attributes.npz", document=document, sentence=sentence, bucket=bucket, topic=topic)
        asked = questions[rng.permutation(len(questions))[:QUESTIONS]]
        attributes = {"bucket": bucket, "topic": topic}
        arrays = _truth(enlarged, attributes, centres, {"tuning": tuning, "questions": asked}, rng)
        np.savez(folder / "queries.npz", **arrays)
        done.write_text(json.dumps({"rows": rows, "real": min(rows, len(vectors)), "step": STEP, "seed": SEED}))
    return Dataset(folder)


def enlarge(
    vectors: np.ndarray, documents: np.ndarray, rows: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The generator: see the module.

    Returns: vectors float32 [rows, 384], and int64 [rows] each one's sentence and document, which ascends.
    """
    starts, ends = _short_documents(documents)
    whole = int((ends - starts).sum())
    order = list(rng.permutation(len(starts)))
    chosen = [(at, False) for at in order]
    count = whole
    while count < rows:
        drawn = int(rng.integers(len(starts)))
        chosen.append((drawn, True))
        count += int(ends[drawn] - starts[drawn])
    chosen = [chosen[at] for at in rng.permutation(len(chosen))]
    spans = [np.arange(starts[at], ends[at]) for at, _ in chosen]
    sentence = np.concatenate(spans)[:rows]
    made = np.repeat([flag for _, flag in chosen], [len(span) for span in spans])[:rows]
    document = np.repeat(np.arange(len(chosen)), [len(span) for span in spans])[:rows]
    result = np.empty((rows, vectors.shape[1]), np.float32)
    for start in range(0, rows, 50_000):
        part = slice(start, start + 50_000)
        result[part] = vectors[sentence[part]]
        moved = np.flatnonzero(made[part]) + start
        result[moved] = _moved(result[moved], vectors, starts, ends, rng)
    return result, sentence, document


def _moved(
    patterns: np.ndarray, vectors: np.ndarray, starts: np.ndarray, ends: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    several = np.flatnonzero(ends - starts > 1)
    drawn = several[rng.integers(len(several), size=len(patterns))]
    sizes = ends[drawn] - starts[drawn]
    first = rng.integers(sizes)
    second = (first + 1 + rng.integers(sizes - 1)) % sizes
    moved = patterns + STEP * (vectors[starts[drawn] + first] - vectors[starts[drawn] + second])
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def _short_documents(documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the runs of up to ten sentences of one document start and end."""
    changes = np.flatnonzero(np.diff(documents, prepend=-1))
    lengths = np.diff(changes, append=len(documents))
    within = np.arange(len(documents)) - np.repeat(changes, lengths)
    starts = np.flatnonzero(within % DOCUMENT_SENTENCES == 0)
    return starts, np.append(starts[1:], len(documents))


def _attributes(
    rows: np.ndarray, document: np.ndarray, real: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """bucket: uniform in [0, 1000) by document; topic: the nearest of 100 centres to a document's mean."""
    count = int(document[-1]) + 1
    bucket = rng.integers(BUCKETS, size=count)
    centres = _centres(real, rng)
    sums = np.zeros((count, rows.shape[1]), np.float32)
    firsts = np.flatnonzero(np.diff(document, prepend=-1))
    sums[document[firsts]] = np.add.reduceat(rows, firsts, axis=0)
    topic = np.argmax(sums @ centres.T, axis=1)
    return bucket[document], topic[document], centres


def _centres(vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spherical k-means, ten rounds over 20,000 vectors."""
    sample = vectors[rng.choice(len(vectors), min(len(vectors), 20_000), replace=False)]
    centres = sample[: min(TOPICS, len(sample))].copy()
    for _ in range(10):
        nearest = np.argmax(sample @ centres.T, axis=1)
        for topic in np.unique(nearest):
            mean = sample[nearest == topic].sum(axis=0)
            centres[topic] = mean / np.linalg.norm(mean)
    return centres


def _truth(
    rows: np.ndarray,
    attributes: dict[str, np.ndarray],
    centres: np.ndarray,
    queries: dict[str, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    order = {name: np.argsort(values, kind="stable") for name, values in attributes.items()}
    ordered = {name: attributes[name][order[name]] for name in attributes}
    topics = _asked_topics(attributes["topic"])
    arrays = dict(queries)
    for kind, vectors in queries.items():
        for workload in WORKLOADS:
            prefix = f"{workload.name}/{kind}"
            if workload.column is not None:
                arrays[f"{prefix}/windows"] = _windows(workload, vectors, topics, centres, rng)
            arrays[f"{prefix}/kth"] = np.empty(len(vectors), np.float32)
            arrays[f"{prefix}/allowed"] = np.empty(len(vectors), np.int64)
        for start in range(0, len(vectors), 64):
            scores = vectors[start : start + 64] @ rows.T
            for at, line in enumerate(scores, start):
                for workload in WORKLOADS:
                    prefix = f"{workload.name}/{kind}"
                    visible = line
                    if workload.column is not None:
                        low, high = arrays[f"{prefix}/windows"][at]
                        span = slice(*np.searchsorted(ordered[workload.column], (low, high)))
                        visible = line[order[workload.column][span]]
                    arrays[f"{prefix}/kth"][at] = _kth(visible)
                    arrays[f"{prefix}/allowed"][at] = len(visible)
    return arrays


def _kth(scores: np.ndarray) -> float:
    if not len(scores):
        return np.inf
    k = min(K, len(scores))
    return float(np.partition(scores, -k)[-k])


def _asked_topics(topic: np.ndarray) -> np.ndarray:
    """The topics whose sizes are nearest to 1 % of the rows."""
    sizes = np.bincount(topic, minlength=TOPICS)
    return np.argsort(np.abs(sizes - len(topic) / TOPICS), kind="stable")[:TOPICS_ASKED]


def _windows(
    workload: Workload, vectors: np.ndarray, topics: np.ndarray, centres: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Sixteen filters of a kind, asked in turn. Topics: every other query in the one nearest to it, else in any."""
    if workload.column == "topic":
        near = topics[np.argmax(vectors @ centres[topics].T, axis=1)]
        anywhere = topics[rng.integers(len(topics), size=len(vectors))]
        low, width = np.where(np.arange(len(vectors)) % 2 == 0, near, anywhere), 1
    else:
        width = round(workload.share * BUCKETS)
        lows = np.linspace(0, BUCKETS - width, WINDOWS).astype(np.int64)
        low = lows[np.arange(len(vectors)) % WINDOWS]
    return np.stack([low, low + width], axis=1).astype(np.int64)
