"""Texts that come as they are, each a document of one passage."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from index.collection.documents import Access, NewDocument, Vectors
from index.collection.filters import checked_scalar
from index.collection.store import CollectionStore
from index.documents.parse import PLAIN, ParsedDocument, clean_text
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
    encoded_tokens: int
    seconds: float

    def into(self, store: CollectionStore) -> IngestReport:
        """Writes them, all or none."""
        started = perf_counter()
        replaced = store.write(self.documents)
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
    return RecordDocuments(documents, tokens, perf_counter() - started)


def _passage(record: Record, encoder: Encoder | None) -> Passage:
    text = clean_text(record.text)
    if not record.name or not text.strip():
        raise InvalidInputError(f"the record {record.name!r} has no name or no text", param="records")
    tokens = 0 if encoder is None else encoder.count_tokens(text)
    return Passage(start=0, end=len(text), page=None, heading="", encoded=text, tokens=tokens)


def _document(record: Record, passage: Passage, vectors: Vectors, access: Access) -> NewDocument:
    attributes = {
        key: checked_scalar(value, f"{record.name}: attribute {key!r}") for key, value in record.attributes.items()
    }
    parsed = ParsedDocument(title=record.title or record.name, text=passage.encoded, pages=(), media_type=PLAIN)
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
                f"the record {record.name!r} brings a vector, but the collection's encoder makes them",
                hint="send the text alone, or create a collection with a dimension instead of an encoder",
                param="records",
            )
    return encode_by_length(encoder, passages)


def _vectors(records: Sequence[Record]) -> Vectors:
    return np.stack([_unit(record) for record in records]) if records else np.empty((0, 0), np.float32)


def _unit(record: Record) -> Vectors:
    vector = np.asarray([] if record.vector is None else record.vector, np.float64)
    length = np.linalg.norm(vector)
    if not np.isfinite(length) or length == 0:
        raise InvalidInputError(
            f"the record {record.name!r}: expected a vector of finite numbers, not all 0", param="records"
        )
    return (vector / length).astype(np.float32)
