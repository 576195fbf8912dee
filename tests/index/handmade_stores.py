"""Collections of vectors of their own: no encoder, no files, everything made here."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.collection.database import create_database
from index.collection.documents import Access, NewDocument
from index.collection.live_view import InMemory
from index.collection.store import CollectionStore
from index.collection.views import Views
from index.documents.parse import PLAIN, ParsedDocument
from index.documents.split import Passage
from index.vectors.view import Structure, ViewOptions

DIMENSION = 16
SPLITTING = {"chunk_tokens": 0, "overlap_tokens": 0}

Vectors = NDArray[np.float32]


def unit_vectors(count: int, dimension: int = DIMENSION, *, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def new_database(folder: Path, dimension: int | None = None) -> Path:
    path = folder / "vs_handmade" / "collection.db"
    create_database(path, "external", "external", dimension)
    return path


def opened(path: Path, structure: Structure = "exact") -> CollectionStore:
    return opened_on(path, in_memory(structure))


def opened_on(path: Path, views: Views) -> CollectionStore:
    return CollectionStore(path, views)


def in_memory(structure: Structure = "exact") -> InMemory:
    return InMemory(lambda dimension: ViewOptions(dimension, device="cpu", structure=structure))


def document(
    name: str,
    vectors: Vectors,
    *,
    text: str = "",
    allow: Sequence[str] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> NewDocument:
    """Of as many passages as there are vectors. float32 [passages, dimension] or [dimension]."""
    vectors = np.atleast_2d(vectors)
    parts = [f"{text or name} part{at}" for at in range(len(vectors))]
    passages, start = [], 0
    for part in parts:
        passages.append(Passage(start, start + len(part), None, "", part, 2))
        start += len(part) + 1
    whole = "\n".join(parts)
    return NewDocument(
        name=name,
        filename=name,
        sha256=hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest(),
        parsed=ParsedDocument(name, whole, (), PLAIN),
        passages=passages,
        vectors=vectors,
        access=Access(None if allow is None else tuple(allow), None if attributes is None else dict(attributes)),
        splitting=SPLITTING,
    )
