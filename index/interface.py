"""What the index offers and the values it speaks in.

The service, which does the work, and the clients, which ask a server for it, have the same methods:
whoever holds an `Index` need not know which one it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from local_llm.permissions import Caller

# What `allow` may hold instead of principals: opens a document to its whole project.
EVERYONE = "everyone"

Report = Callable[[int, int, str], None]
"""Progress of long work: report(done, total, note), counted in documents."""


def silent(_done: int, _total: int, _note: str) -> None:
    """The report of whoever does not look on."""


@dataclass(frozen=True)
class Source:
    """A file that becomes the document `name`. The suffix of `filename` tells its format."""

    path: Path
    name: str
    filename: str


@dataclass(frozen=True)
class Page:
    """Characters [start, end) of a document's text are its page `number`, which counts from 1."""

    number: int
    start: int
    end: int


@dataclass(frozen=True)
class Hit:
    """A passage found: characters [start, end) of this version of the document are `text`.

    `score` is the cosine of query and passage, in [-1, 1]; `heading` its path of headings, "" if none.
    """

    collection: str
    document: str
    document_id: str
    title: str
    version: int
    page: int | None
    start: int
    end: int
    text: str
    heading: str
    score: float
    passage_id: int


@dataclass(frozen=True)
class CollectionInfo:
    id: str
    name: str
    encoder: str
    created_at: int


@dataclass(frozen=True)
class CollectionStats:
    """What the caller can see of a collection. `bytes` is the whole database on disk."""

    id: str
    name: str
    encoder: str
    documents: int
    passages: int
    characters: int
    bytes: int


@dataclass(frozen=True)
class DocumentInfo:
    id: str
    name: str
    title: str
    version: int
    media_type: str
    allow: tuple[str, ...] | None
    attributes: dict[str, Any]
    passages: int
    created_at: int


@dataclass(frozen=True)
class DocumentText:
    """The stored text that citations point into."""

    id: str
    name: str
    title: str
    version: int
    media_type: str
    text: str
    pages: tuple[Page, ...]


@dataclass(frozen=True)
class Skipped:
    document: str
    reason: str


@dataclass(frozen=True)
class IngestReport:
    """What became of the files given. `unchanged` speaks of content: who may see it can have changed.

    Passages and tokens count what was encoded this time.
    """

    added: int
    replaced: int
    unchanged: int
    skipped: tuple[Skipped, ...]
    passages: int
    tokens: int
    seconds: float


class Index(Protocol):
    """Every method sees only the caller's project, and of its documents only those the caller may see.

    A collection is named by its name or its id.

    Raises: NotFoundError for anything beyond the caller's sight; UnavailableError if a server is needed
    and does not answer.
    """

    def create(self, caller: Caller, name: str) -> CollectionInfo:
        """Raises: ConflictError if the project has a collection of that name; InvalidInputError."""

    def collections(self, caller: Caller) -> list[CollectionInfo]: ...

    def get(self, caller: Caller, collection: str) -> CollectionInfo: ...

    def delete(self, caller: Caller, collection: str) -> None:
        """Raises: ForbiddenError unless the caller is an admin; ConflictError if a profile uses it."""

    def add(
        self,
        caller: Caller,
        collection: str,
        sources: Sequence[Source],
        *,
        allow: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        report: Report = silent,
    ) -> IngestReport:
        """Adds documents, or replaces those of the same names. Done when it returns, each whole or not at all.

        `allow` and `attributes` of None leave those of a replaced document as they are; a new document is
        then open to its project. `allow` of [EVERYONE] opens a restricted one.

        Raises: ForbiddenError if a member's `allow` names others than itself; ConflictError if the
        collection was built with another encoder.
        """

    def remove(self, caller: Caller, collection: str, names: Sequence[str]) -> int:
        """Removes documents by name, all or none; returns how many."""

    def search(self, caller: Caller, collection: str, query: str, k: int = 5) -> list[Hit]:
        """The k passages nearest to the query, best first; fewer if the caller sees fewer."""

    def stats(self, caller: Caller, collection: str) -> CollectionStats: ...

    def documents(self, caller: Caller, collection: str) -> list[DocumentInfo]: ...

    def document(
        self, caller: Caller, collection: str, document_id: str, version: int | None = None
    ) -> DocumentText:
        """Raises: NotFoundError also when `version` is given and another one has taken its place."""
