"""Texts that come as they are, each a document of one passage."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from index.collection.attributes import checked_attributes, checked_text, shown
from index.collection.documents import Access, NewDocument, Vectors
from index.collection.store import CollectionStore
from index.documents.document import ParsedDocument
from index.documents.media_types import PLAIN
from index.documents.parse import clean_text
from index.documents.split import Passage
from index.encoding.encoder import Encoder
from index.ingestion.ingest import encode_by_length, refuse_equal
from index.interface import IngestReport, Record
from local_llm.errors import InvalidInputError

# No title is put before a record's text and it is not split.
SPLITTING = {"chunk_tokens": 0, "overlap_tokens": 0}


@dataclass(frozen=True)
class RecordDocuments:
    documents: list[NewDocument]
    fingerprint: str | None
    encoded_tokens: int
    seconds: float

    def into(self, store: CollectionStore) -> IngestReport:
        """Writes them, all or none."""
        started = perf_counter()
        replaced = store.write(self.documents, self.fingerprint)
        return IngestReport(
            added=len(replaced) - sum(replaced),
            replaced=sum(replaced),
            unchanged=0,
            skipped=(),
            passages=len(replaced),
            tokens=self.encoded_tokens,
            seconds=self.seconds + perf_counter() - started,
        )


def as_documents(records: Sequence[Record], access: Access, encoder: Encoder | None) -> RecordDocuments:
    """`encoder` None: each record brings its vector.

    Raises: InvalidInputError naming the record that is wrong.
    """
    started = perf_counter()
    refuse_equal([record.name for record in records])
    passages = [_passage(record, encoder) for record in records]
    vectors = _vectors(records) if encoder is None else _encoded(records, passages, encoder)
    documents = [
        _document(record, passage, vectors[at : at + 1], access)
        for at, (record, passage) in enumerate(zip(records, passages, strict=True))
    ]
    tokens = sum(passage.tokens for passage in passages)
    fingerprint = None if encoder is None else encoder.fingerprint
    return RecordDocuments(documents, fingerprint, tokens, perf_counter() - started)


def _passage(record: Record, encoder: Encoder | None) -> Passage:
    checked_text(record.name, "the name of a record", "records")
    text = clean_text(record.text)
    if not text.strip():
        raise InvalidInputError(f"the record {shown(record.name)} has no text", param="records")
    tokens = 0 if encoder is None else encoder.count_tokens(text)
    return Passage(start=0, end=len(text), page=None, heading="", encoded=text, tokens=tokens)


def _document(record: Record, passage: Passage, vectors: Vectors, access: Access) -> NewDocument:
    attributes = checked_attributes(record.attributes, record.name)
    title = clean_text(record.title) or record.name
    parsed = ParsedDocument(title=title, text=passage.encoded, pages=(), media_type=PLAIN)
    return NewDocument(
        name=record.name,
        filename=record.name,
        sha256=hashlib.sha256(passage.encoded.encode()).hexdigest(),
        parsed=parsed,
        passages=[passage],
        vectors=vectors,
        access=Access(access.allow, attributes),
        splitting=SPLITTING,
    )


def _encoded(records: Sequence[Record], passages: list[Passage], encoder: Encoder) -> Vectors:
    for record in records:
        if record.vector is not None:
            raise InvalidInputError(
                f"the record {shown(record.name)} brings a vector, but the collection's encoder makes them",
                hint="send the text alone, or create a collection with a dimension instead of an encoder",
                param="records",
            )
    return encode_by_length(encoder, passages)


def _vectors(records: Sequence[Record]) -> Vectors:
    vectors = [unit_vector(record.vector, f"the record {shown(record.name)}", "records") for record in records]
    for record, vector in zip(records, vectors, strict=True):
        if vector.shape != vectors[0].shape:
            raise InvalidInputError(
                f"the record {shown(record.name)} brings {len(vector)} numbers, the first one {len(vectors[0])}",
                param="records",
            )
    return np.stack(vectors) if vectors else np.empty((0, 0), np.float32)


def unit_vector(numbers: Sequence[float] | None, what: str, param: str) -> Vectors:
    """float32 [dimension], of length 1, whatever the length of what came.

    Raises: InvalidInputError for what has no direction.
    """
    try:
        vector = np.asarray([] if numbers is None else numbers, np.float64)
    except (TypeError, ValueError, OverflowError):  # texts, lists of unequal length, whole numbers beyond 1e308
        vector = np.empty(0)
    largest = np.abs(vector).max(initial=0)
    if vector.ndim != 1 or not np.isfinite(largest) or largest == 0:
        raise InvalidInputError(f"{what}: expected a vector of finite numbers, not all 0", param=param)
    vector = vector / largest  # squares of very large and very small numbers are none
    return (vector / np.linalg.norm(vector)).astype(np.float32)
