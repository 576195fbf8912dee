"""One collection: its database of documents and passages, and the vector index over them.

The database is the truth. A document changes in one transaction, and the vector index follows under the same
lock, so that no search sees half of either.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from index.documents.parse import ParsedDocument
from index.documents.split import Passage
from index.encoding.encoder import Vectors
from index.interface import EVERYONE, DocumentInfo, DocumentText, Hit, Page
from index.vectors.exact import Ids, VectorIndex
from local_llm.errors import IntegrityError, NotFoundError
from local_llm.fileio import fsync_path
from local_llm.identifiers import new_id, now

SCHEMA = Path(__file__).parent / "schema.sql"
SCHEMA_VERSION = 1
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000")

Principals = tuple[str, ...] | None
"""Whose documents are visible; None: all of them."""

# True for every document that :principals (JSON, or NULL for all) may see.
_VISIBLE = """(
    :principals IS NULL OR allow IS NULL
    OR EXISTS (SELECT 1 FROM json_each(allow) AS a JOIN json_each(:principals) AS p ON a.value = p.value)
)"""


@dataclass(frozen=True)
class StoredDocument:
    """What decides whether a file brings anything new."""

    id: str
    version: int
    sha256: str
    allow: Principals
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Access:
    """What was asked for with a document, as `Index.add` takes it: None leaves what is there."""

    allow: tuple[str, ...] | None
    attributes: dict[str, Any] | None

    def over(self, old: StoredDocument | None) -> tuple[Principals, dict[str, Any]]:
        """The allowed principals and the attributes that a document has from now on."""
        kept_allow, kept_attributes = (old.allow, old.attributes) if old else (None, {})
        allow = kept_allow if self.allow is None else self.allow
        opened = allow is not None and EVERYONE in allow
        return (
            None if opened else allow,
            kept_attributes if self.attributes is None else self.attributes,
        )


@dataclass(frozen=True)
class NewDocument:
    """A document ready to be written. embeddings: float32 [passages, dimension], rows of length 1."""

    name: str
    sha256: str
    parsed: ParsedDocument
    passages: Sequence[Passage]
    embeddings: Vectors
    access: Access


@dataclass(frozen=True)
class Counts:
    documents: int
    passages: int
    characters: int


class CollectionStore:
    """An open collection. Its methods may be called from several threads at once."""

    def __init__(self, path: Path, device: str):
        self._path = path
        self._lock = threading.RLock()
        self._database = _open(path)
        self._vectors = VectorIndex(device)
        self._fill_vectors()

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # Writing

    def write(self, document: NewDocument) -> bool:
        """Adds a document or replaces the one of its name: its new version whole, nothing of the old one left.

        Returns: whether it replaced one.

        Raises: IntegrityError if a passage lies outside the text.
        """
        _verify_offsets(document)
        with self._lock:
            with self._transaction():
                old = self.find(document.name)
                gone = self._passage_ids(old.id) if old else []
                identifier = self._write_document(document, old)
                added = self._write_passages(identifier, document)
            self._vectors.remove(np.array(gone, np.int64))
            self._vectors.add(added, document.embeddings)
        return old is not None

    def update_if_unchanged(self, name: str, sha256: str, access: Access) -> bool:
        """If the document has this content, gives it this access and returns True: it need not be encoded."""
        with self._lock, self._transaction():
            old = self.find(name)
            if old is None or old.sha256 != sha256:
                return False
            allow, attributes = access.over(old)
            self._database.execute(
                "UPDATE documents SET allow = ?, attributes = ? WHERE id = ?",
                (_to_json(allow), _to_json(attributes), old.id),
            )
            return True

    def remove(self, names: Sequence[str], principals: Principals) -> int:
        """Removes documents, all or none.

        Raises: NotFoundError naming those that are not there or not visible.
        """
        with self._lock:
            with self._transaction():
                found = {info.name: info.id for info in self.documents(principals)}
                missing = [name for name in names if name not in found]
                if missing:
                    raise NotFoundError(f"no such document: {', '.join(missing)}", param="document")
                identifiers = [found[name] for name in dict.fromkeys(names)]
                gone = [passage for identifier in identifiers for passage in self._passage_ids(identifier)]
                self._database.executemany("DELETE FROM documents WHERE id = ?", [(i,) for i in identifiers])
            self._vectors.remove(np.array(gone, np.int64))
        return len(identifiers)

    # Reading

    def search(self, collection: str, query: Vectors, k: int, principals: Principals) -> list[Hit]:
        """query: float32 [1, dimension]. Only visible passages are ranked."""
        with self._lock:
            allowed = None if principals is None else self._allowed(principals)
            scores, ids = self._vectors.search(query, k, allowed)
            # Once more against the database: what the view says is not enough to show a passage.
            rows = self._hit_rows([int(identifier) for identifier in ids[0]], principals)
        return [
            Hit(collection=collection, score=float(score), **rows[int(identifier)])
            for score, identifier in zip(scores[0], ids[0], strict=True)
            if int(identifier) in rows
        ]

    def documents(self, principals: Principals) -> list[DocumentInfo]:
        rows = self._all(
            f"""SELECT id, name, title, version, media_type, allow, attributes, created_at,
                (SELECT count(*) FROM passages WHERE document_id = documents.id) AS passages
            FROM documents WHERE {_VISIBLE} ORDER BY name""",
            principals=_to_json(principals),
        )
        return [DocumentInfo(**{**row, **_access(row)}) for row in rows]

    def find(self, name: str) -> StoredDocument | None:
        rows = self._all(
            "SELECT id, version, sha256, allow, attributes FROM documents WHERE name = :name", name=name
        )
        return StoredDocument(**{**rows[0], **_access(rows[0])}) if rows else None

    def document(self, identifier: str, version: int | None, principals: Principals) -> DocumentText:
        """Raises: NotFoundError if it is not there, not visible, or of another version."""
        rows = self._all(
            f"""SELECT id, name, title, version, media_type, text FROM documents
            WHERE id = :id AND {_VISIBLE}""",
            id=identifier,
            principals=_to_json(principals),
        )
        if not rows:
            raise NotFoundError(f"no such document: {identifier}", param="document_id")
        if version not in (None, rows[0]["version"]):
            raise NotFoundError(
                f"version {version} of {rows[0]['name']} was replaced by version {rows[0]['version']}",
                param="version",
            )
        return DocumentText(**rows[0], pages=self._pages(identifier))

    def counts(self, principals: Principals) -> Counts:
        rows = self._all(
            f"""SELECT count(*) AS documents, coalesce(sum(length(text)), 0) AS characters,
                coalesce(sum((SELECT count(*) FROM passages WHERE document_id = documents.id)), 0) AS passages
            FROM documents WHERE {_VISIBLE}""",
            principals=_to_json(principals),
        )
        return Counts(**rows[0])

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self._path.parent.glob(f"{self._path.name}*"))

    # Below the surface

    def _fill_vectors(self) -> None:
        rows = self._database.execute("SELECT id, embedding FROM passages ORDER BY id").fetchall()
        if rows:
            ids = np.array([row["id"] for row in rows], np.int64)
            self._vectors.add(ids, np.stack([np.frombuffer(row["embedding"], "<f4") for row in rows]))

    def _write_document(self, document: NewDocument, old: StoredDocument | None) -> str:
        if old:
            self._database.execute("DELETE FROM documents WHERE id = ?", (old.id,))
        identifier = old.id if old else new_id("doc_")
        allow, attributes = document.access.over(old)
        self._database.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                identifier,
                document.name,
                document.parsed.title,
                old.version + 1 if old else 1,
                document.sha256,
                document.parsed.media_type,
                document.parsed.text,
                _to_json(allow),
                _to_json(attributes),
                now(),
            ),
        )
        self._database.executemany(
            "INSERT INTO pages VALUES (?, ?, ?, ?)",
            [(identifier, page.number, page.start, page.end) for page in document.parsed.pages],
        )
        return identifier

    def _write_passages(self, document_id: str, document: NewDocument) -> Ids:
        ids = []
        for position, (passage, embedding) in enumerate(zip(document.passages, document.embeddings, strict=True)):
            cursor = self._database.execute(
                """INSERT INTO passages (document_id, position, start_char, end_char, page, heading, embedding)
                VALUES (?, ?, ?, ?, ?, ?, ?)""",
                (
                    document_id,
                    position,
                    passage.start,
                    passage.end,
                    passage.page,
                    passage.heading,
                    embedding.astype("<f4").tobytes(),
                ),
            )
            ids.append(cursor.lastrowid)
        return np.array(ids, np.int64)

    def _allowed(self, principals: tuple[str, ...]) -> Ids:
        rows = self._all(
            f"""SELECT passages.id FROM passages JOIN documents ON documents.id = document_id
            WHERE {_VISIBLE}""",
            principals=_to_json(principals),
        )
        return np.array([row["id"] for row in rows], np.int64)

    def _hit_rows(self, ids: list[int], principals: Principals) -> dict[int, dict[str, Any]]:
        rows = self._all(
            f"""SELECT passages.id AS passage_id, document_id, name AS document, title, version, page, heading,
                start_char AS start, end_char AS "end",
                substr(text, start_char + 1, end_char - start_char) AS text
            FROM passages JOIN documents ON documents.id = document_id
            WHERE passages.id IN (SELECT value FROM json_each(:ids)) AND {_VISIBLE}""",
            ids=_to_json(ids),
            principals=_to_json(principals),
        )
        return {row["passage_id"]: row for row in rows}

    def _pages(self, document_id: str) -> tuple[Page, ...]:
        rows = self._all(
            """SELECT number, start_char AS start, end_char AS "end" FROM pages
            WHERE document_id = :id ORDER BY number""",
            id=document_id,
        )
        return tuple(Page(**row) for row in rows)

    def _passage_ids(self, document_id: str) -> list[int]:
        return [row["id"] for row in self._all("SELECT id FROM passages WHERE document_id = :id", id=document_id)]

    def _all(self, query: str, **values: Any) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(row) for row in self._database.execute(query, values)]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise


def create_database(path: Path) -> None:
    """Makes the empty database of a new collection, in a folder of its own."""
    path.parent.mkdir(parents=True, mode=0o700)
    database = _connect(path)
    database.executescript(f"BEGIN IMMEDIATE; {SCHEMA.read_text(encoding='utf-8')} COMMIT;")
    database.close()
    fsync_path(path.parent)
    fsync_path(path.parent.parent)


def _open(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise NotFoundError(f"the database of the collection is gone: {path}")
    database = _connect(path)
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        database.close()
        raise IntegrityError(
            f"{path} has schema version {version}; this release reads version {SCHEMA_VERSION}",
            hint="open it with the release that wrote it",
        )
    return database


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.row_factory = sqlite3.Row
    for pragma in PRAGMAS:
        database.execute(f"PRAGMA {pragma}")
    return database


def _verify_offsets(document: NewDocument) -> None:
    length = len(document.parsed.text)
    for passage in document.passages:
        inside = 0 <= passage.start < passage.end <= length
        if not inside or not passage.encoded.endswith(document.parsed.text[passage.start : passage.end]):
            raise IntegrityError(f"{document.name}: characters {passage.start}-{passage.end} are not the passage")


def _access(row: dict[str, Any]) -> dict[str, Any]:
    allow = row["allow"]
    return {
        "allow": None if allow is None else tuple(json.loads(allow)),
        "attributes": json.loads(row["attributes"]),
    }


def _to_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
