"""What the index offers and the values it speaks in.

The service, which does the work, and the clients, which ask a server for it, have the same methods:
whoever holds an `Index` need not know which one it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from local_llm.permissions import Caller

# Every id of a collection begins like this, and no name does.
ID_PREFIX = "vs_"
# What `allow` may hold instead of principals: opens a document to its whole project.
EVERYONE = "everyone"
# The encoder of a collection that is bound to none: its records and queries bring vectors.
EXTERNAL = "external"
# Most passages that are read at once: a few MB.
PASSAGE_PAGE = 10_000

Report = Callable[[int, int, str], None]
"""Progress of long work: report(done, total, note), counted in documents."""


def silent(_done: int, _total: int, _note: str) -> None:
    """The report of whoever does not look on."""


@dataclass(frozen=True)
class Source:
    """A file that becomes the document `name`. The suffix of `filename` tells its format.

    `file_id` is that of the upload it is, if it is one.
    """

    path: Path
    name: str
    filename: str
    file_id: str | None = None


@dataclass(frozen=True)
class Record:
    """A text that becomes the document `name`, whole, as one passage.

    `vector` (any length but 0) only for collections that bring their own, and always there.
    """

    name: str
    text: str
    title: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    vector: Sequence[float] | None = None


@dataclass(frozen=True)
class Splitting:
    """Sizes of passages in the encoder's tokens; None: those of the settings."""

    chunk_tokens: int | None = None
    overlap_tokens: int | None = None


@dataclass(frozen=True)
class Ranking:
    """How a collection is searched beyond the nearest vectors. Each part can be switched; none is on unmeasured.

    `lexical`: fused with BM25; `reranker`: name of a cross-encoder in the model store; `merged`: neighbouring
    and equal passages become one hit.
    """

    lexical: bool = False
    reranker: str | None = None
    merged: bool = False


@dataclass(frozen=True)
class Page:
    """Characters [start, end) of a document's text are its page `number`, which counts from 1."""

    number: int
    start: int
    end: int


@dataclass(frozen=True)
class Hit:
    """A passage found: characters [start, end) of this version of the document are `text`.

    `document` is the document's name, `filename` what people know it by, `heading` the passage's path of headings,
    "" if none. `score` is the cosine of query and passage, in [-1, 1], where nothing else ranks.
    """

    collection: str
    document: str
    document_id: str
    filename: str
    file_id: str | None
    attributes: dict[str, Any]
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
class Found:
    """What a search brought, and how long it took from the query to a vector, and from that to hits."""

    hits: list[Hit]
    encode_seconds: float
    search_seconds: float


@dataclass(frozen=True)
class CollectionInfo:
    """`title` is the name that an API client gave where that cannot name a collection, or is taken."""

    id: str
    name: str
    title: str | None
    encoder: str
    created_at: int
    metadata: dict[str, str]
    expires_after_days: int | None
    last_active_at: int
    ranking: Ranking


@dataclass(frozen=True)
class SearchQuality:
    """How well approximate search finds what exact search finds: share of its ten best, over so many queries.

    `source`: "queries" that were asked here, or "passages": spans of what is stored. None: nothing is approximate,
    or it was not measured yet.
    """

    structure: str
    recall: float | None
    queries: int
    source: str | None
    target_recall: float
    below_target: bool
    waiting: int  # passages found by comparing each, not yet in the structure


@dataclass(frozen=True)
class CollectionStats:
    """What the caller can see of a collection. `bytes` is all of it on disk; `search` is for admins only."""

    id: str
    name: str
    encoder: str
    documents: int
    passages: int
    characters: int
    bytes: int
    search: SearchQuality | None


@dataclass(frozen=True)
class DocumentInfo:
    id: str
    name: str
    filename: str
    file_id: str | None
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
    filename: str
    file_id: str | None
    title: str
    version: int
    media_type: str
    text: str
    pages: tuple[Page, ...]


@dataclass(frozen=True)
class StoredPassage:
    """A passage of the document `document`, its name. `text` is what is encoded of it: title and headings first."""

    id: int
    document_id: str
    document: str
    text: str


@dataclass(frozen=True)
class Skipped:
    document: str
    reason: str


@dataclass(frozen=True)
class IngestReport:
    """What became of the files given. `unchanged` speaks of content: who may see it can have changed.

    Passages and tokens count what was encoded this time; `ahead` passages came with their vectors from a folder.
    """

    added: int
    replaced: int
    unchanged: int
    skipped: tuple[Skipped, ...]
    passages: int
    tokens: int
    seconds: float
    ahead: int = 0


@dataclass(frozen=True)
class SyncReport:
    """What a sync did, or would do: names of documents. `ingest` is None for a dry run."""

    to_add: tuple[str, ...]
    to_replace: tuple[str, ...]
    to_remove: tuple[str, ...]
    unchanged: int
    ingest: IngestReport | None


@dataclass(frozen=True)
class ReembedReport:
    """`ahead`: passages that came with their vectors from a folder."""

    encoder: str
    passages: int
    seconds: float
    ahead: int = 0


@dataclass(frozen=True)
class Embeddings:
    """vectors: [texts, dimension], rows of length 1. `truncated` texts were longer than the encoder reads."""

    model: str
    vectors: list[list[float]]
    tokens: int
    truncated: int


@dataclass(frozen=True)
class Attachment:
    """An upload that is to become a document of its id. `allow` and `attributes` as in `Index.add`; without `allow`
    a new document is for those who may see the upload."""

    file_id: str
    allow: tuple[str, ...] | None = None
    attributes: Mapping[str, Any] | None = None
    splitting: Splitting = Splitting()


@dataclass(frozen=True)
class AttachedFile:
    """A document as a file of its collection, or an upload on its way to become one.

    `id` is that of the upload, or of the document where there is none. `status`: "in_progress", "completed" (found
    by searches from then on, and durable), "failed" or "cancelled". `bytes`: of text and vectors, about.
    """

    id: str
    status: str
    error_code: str | None
    error_message: str | None
    created_at: int
    filename: str
    document_id: str | None
    allow: tuple[str, ...] | None
    attributes: dict[str, Any]
    chunk_tokens: int | None  # None, as long as it is in progress: that of the settings
    overlap_tokens: int | None
    bytes: int


@dataclass(frozen=True)
class FileCounts:
    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        return self.in_progress + self.completed + self.failed + self.cancelled


@dataclass(frozen=True)
class AttachedBatch:
    """Uploads that were attached together. What was detached since is not counted."""

    id: str
    created_at: int
    cancelled: bool
    files: FileCounts


@dataclass(frozen=True)
class CollectionUsage:
    """What the caller can see of a collection's files. `bytes` is all of it on disk.

    `damage`: why the collection cannot be read, if it cannot.
    """

    id: str
    files: FileCounts
    bytes: int
    expired: bool
    damage: str | None = None


@dataclass(frozen=True)
class FileQuery:
    """Which files, from where in the list, and how many. `after` and `before` are ids; `order` is by time."""

    batch: str | None = None
    status: str | None = None
    after: str | None = None
    before: str | None = None
    limit: int = 20
    order: str = "desc"


@dataclass(frozen=True)
class FilePage:
    files: list[AttachedFile]
    has_more: bool


class Index(Protocol):
    """Every method sees only the caller's project, and of its documents only those the caller may see.

    A collection is named by its name or its id.

    Raises: NotFoundError for anything beyond the caller's sight; UnavailableError if a server is needed
    and does not answer.
    """

    def create(
        self,
        caller: Caller,
        name: str | None = None,
        *,
        title: str | None = None,
        encoder: str | None = None,
        dimension: int | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
    ) -> CollectionInfo:
        """An empty collection, bound to an encoder: the one named, else that of the settings.

        With `dimension` it is bound to none: its records bring vectors of that many numbers, and so do searches.
        Without a name it is named by its id.

        Raises: ConflictError if the project has a collection of that name; InvalidInputError.
        """

    def update(
        self,
        caller: Caller,
        collection: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
        never_expires: bool = False,
        ranking: Ranking | None = None,
    ) -> CollectionInfo:
        """Changes what is given and leaves the rest.

        Raises: ForbiddenError unless the caller is an admin, for expiry and ranking.
        """

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
        splitting: Splitting | None = None,
        encoded: Path | None = None,
        report: Report = silent,
    ) -> IngestReport:
        """Adds documents, or replaces those of the same names. Done when it returns, each whole or not at all.

        `allow` and `attributes` of None leave those of a replaced document as they are; a new document is
        then open to its project. `allow` of [EVERYONE] opens a restricted one. What is unchanged is not encoded,
        nor what the folder `encoded` has vectors of (index.bulk).

        Raises: ForbiddenError if a member's `allow` names others than itself; ConflictError if the
        collection's encoder is not here as it was, or another than the folder's.
        """

    def put(
        self, caller: Caller, collection: str, records: Sequence[Record], *, allow: Sequence[str] | None = None
    ) -> IngestReport:
        """Adds or replaces documents that are texts, all or none."""

    def sync(
        self,
        caller: Caller,
        collection: str,
        sources: Sequence[Source],
        *,
        scope: str,
        dry_run: bool = False,
        allow: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        report: Report = silent,
    ) -> SyncReport:
        """Makes the documents whose names begin with `scope` those of `sources`: adds, replaces, then removes.

        Nothing is removed before everything new is complete. A file that cannot be read keeps its old version.

        Raises: InvalidInputError if a source's name does not begin with the scope.
        """

    def reembed(
        self,
        caller: Caller,
        collection: str,
        *,
        encoder: str | None = None,
        encoded: Path | None = None,
        report: Report = silent,
    ) -> ReembedReport:
        """Moves a collection to another encoder (None: that of the settings) while searches go on with the old one.

        From one search to the next all passages are as the new encoder sees them. Progress counts passages. What
        the folder `encoded` has vectors of is not encoded (index.bulk).

        Raises: ForbiddenError unless the caller is an admin; ConflictError if the folder is of another encoder.
        """

    def set_access(
        self,
        caller: Caller,
        collection: str,
        name: str,
        *,
        allow: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Changes who sees a document, or its attributes; nothing is encoded. Holds when it returns."""

    def remove(self, caller: Caller, collection: str, names: Sequence[str]) -> int:
        """Removes documents by name, all or none; returns how many."""

    def remove_matching(
        self,
        caller: Caller,
        collection: str,
        *,
        names: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Removes the documents that records() would return, in one step; returns how many."""

    def search(
        self,
        caller: Caller,
        collection: str,
        query: str | Sequence[float],
        k: int = 5,
        *,
        filters: Mapping[str, Any] | None = None,
        ranking: Ranking | None = None,
    ) -> list[Hit]:
        """The k passages that answer the query best, best first; fewer if the caller sees fewer.

        `filters` are as in the vector-store API; `ranking` None: as the collection is set. A vector as a query only
        for collections that bring their own.
        """

    def find(
        self,
        caller: Caller,
        collection: str,
        query: str | Sequence[float],
        k: int = 5,
        *,
        filters: Mapping[str, Any] | None = None,
        ranking: Ranking | None = None,
    ) -> Found:
        """The same, and what it took."""

    def stats(self, caller: Caller, collection: str) -> CollectionStats: ...

    def documents(self, caller: Caller, collection: str) -> list[DocumentInfo]: ...

    def document(
        self, caller: Caller, collection: str, document_id: str, version: int | None = None
    ) -> DocumentText:
        """Raises: NotFoundError also when `version` is given and another one has taken its place."""

    def current(
        self, caller: Caller, collection: str, versions: Sequence[tuple[str, int]]
    ) -> list[tuple[str, int]]:
        """Those of these documents, given as (id, version), that are there in that version and visible.

        Nothing if the collection is gone.
        """

    def records(
        self,
        caller: Caller,
        collection: str,
        *,
        names: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> list[Record]:
        """The documents of these names (None: of any) that pass the filter, in the order they were first added.

        Names that the caller does not see are passed over. Vectors are not read: `vector` is None.
        """

    def passages(
        self, caller: Caller, collection: str, *, after: int = 0, limit: int = 1000
    ) -> list[StoredPassage]:
        """The first `limit` passages with ids above `after`, by their ids: the last one's is the next `after`.

        A page is of one moment; a document replaced between two pages has its new passages in a later one.

        Raises: InvalidInputError for a limit below 1 or above PASSAGE_PAGE.
        """

    def embed(
        self,
        caller: Caller,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        *,
        model: str | None = None,
        kind: str = "document",
    ) -> Embeddings:
        """Vectors of texts, or of token ids of the encoder's own tokenizer. `kind`: "document" or "query".

        `model` names an encoder; None: that of the settings.

        Raises: ModelNotFoundError; InvalidInputError for an empty input, or ids of another tokenizer.
        """
