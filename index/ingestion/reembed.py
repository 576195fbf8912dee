"""All passages of a collection encoded anew by another encoder, while searches go on with the one they have."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from index.collection.next_generation import Lacking, NextGeneration
from index.collection.store import CollectionStore
from index.documents.split import Passage
from index.encoding.encoder import Encoder, Vectors
from index.ingestion.ingest import GROUP_PASSAGES, EncodedAhead, encode_by_length
from index.interface import ReembedReport, Report

# Documents change behind the one encoded last: a second pass leaves little to encode while nothing can change.
PASSES = 2
# Documents looked up at a time; a group of them is encoded once it has passages enough.
BLOCK_DOCUMENTS = 64


@dataclass
class Encoded:
    """What one run encoded and stored, and how long that took."""

    passages: int = 0
    tokens: int = 0
    seconds: float = 0.0
    ahead: int = 0  # passages that were not encoded: they came with their vectors


@dataclass
class Reembedding:
    """`run` may be called once. A run cut off leaves searches as they are; the next one goes on from there.
    `encoded` tells what it has done so far."""

    store: CollectionStore
    encoder: Encoder
    report: Report
    ahead: EncodedAhead | None = None
    encoded: Encoded = field(default_factory=Encoded)

    def run(self) -> ReembedReport:
        """Raises: ConflictError if another run is under way."""
        with self.store.moving():
            return self._run()

    def _run(self) -> ReembedReport:
        started = perf_counter()
        following = self.store.begin_generation(self.encoder.name, self.encoder.fingerprint)
        total = self.store.counts(None).passages
        self.report(following.passages(), total, "")
        for _ in range(PASSES):
            for documents in _groups(following):
                self._encode(following, documents)
                self.report(min(total, following.passages()), total, "")
        self.store.adopt(following, lambda: self._complete(following))
        passages = self.store.counts(None).passages
        return ReembedReport(self.encoder.name, passages, perf_counter() - started, self.encoded.ahead)

    def _complete(self, following: NextGeneration) -> None:
        for documents in _groups(following):
            self._encode(following, documents)

    def _encode(self, following: NextGeneration, documents: list[Lacking]) -> None:
        began = perf_counter()
        texts = [text for document in documents for text in document.texts]
        known = {} if self.ahead is None else self.ahead.find(texts)
        passages = [_as_passage(text, self.encoder) for text in texts if text not in known]
        vectors = np.empty((len(texts), self.encoder.dimension), np.float32)
        lacking = np.array([text not in known for text in texts], bool)
        vectors[lacking] = encode_by_length(self.encoder, passages)
        for at in np.flatnonzero(~lacking):
            vectors[at] = known[texts[at]]
        following.write(documents, list(_by_document(documents, vectors)))
        self.encoded.passages += len(passages)
        self.encoded.ahead += len(texts) - len(passages)
        self.encoded.tokens += sum(passage.tokens for passage in passages)
        self.encoded.seconds += perf_counter() - began


def _groups(following: NextGeneration) -> Iterator[list[Lacking]]:
    """What is lacking, in groups worth encoding together."""
    group: list[Lacking] = []
    after = 0
    while documents := following.lacking(BLOCK_DOCUMENTS, after=after):
        after = documents[-1].number
        group += documents
        if sum(len(document.texts) for document in group) >= GROUP_PASSAGES:
            yield group
            group = []
    if group:
        yield group


def _by_document(documents: list[Lacking], vectors: Vectors) -> Iterator[Vectors]:
    at = 0
    for document in documents:
        yield vectors[at : at + len(document.texts)]
        at += len(document.texts)


def _as_passage(text: str, encoder: Encoder) -> Passage:
    return Passage(start=0, end=len(text), page=None, heading="", encoded=text, tokens=encoder.count_tokens(text))
