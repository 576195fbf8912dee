"""Collections that are opened without a server or an encoder: documents of sentences, with vectors of their own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from index.collection.database import create_database
from index.collection.documents import Access, NewDocument
from index.collection.live_view import InMemory
from index.collection.store import CollectionStore
from index.documents.parse import PLAIN, ParsedDocument
from index.documents.split import Passage
from index.interface import Page
from index.vectors.view import ViewOptions

DIMENSION = 4
Open = Callable[[], CollectionStore]


def document(
    name: str,
    passages: Sequence[str],
    *,
    allow: tuple[str, ...] | None = None,
    vector: Sequence[float] = (1, 0, 0, 0),
    headings: Sequence[str] | None = None,
    pages: Sequence[Page] = (),
    between: str = "\n",
) -> NewDocument:
    """A text of these passages, one after the other, all with one vector."""
    text, found = "", []
    for at, passage in enumerate(passages):
        start = len(text)
        text += passage + between
        page = next((page.number for page in pages if page.start <= start < page.end), None)
        heading = headings[at] if headings else ""
        found.append(Passage(start, start + len(passage), page, heading, passage, 1))
    unit = np.asarray(vector, np.float32) / np.linalg.norm(vector)
    return NewDocument(
        name=name,
        filename=name,
        sha256=name,
        parsed=ParsedDocument(name, text, tuple(pages), PLAIN),
        passages=found,
        vectors=np.tile(unit, (len(found), 1)).astype(np.float32),
        access=Access(allow),
        splitting={},
    )


@pytest.fixture
def reopen(tmp_path: Path) -> Open:
    """Opens the collection; the same one each time."""
    path = tmp_path / "vs_1" / "collection.db"
    create_database(path, "none", "none", DIMENSION)
    views = InMemory(lambda dimension: ViewOptions(dimension=dimension, device="cpu"))
    return lambda: CollectionStore(path, views)


@pytest.fixture
def store(reopen: Open) -> CollectionStore:
    return reopen()
