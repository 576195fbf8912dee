"""Documents and passages as rows: what is written of them, and what is read."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.collection.attributes import Scalar, is_storable
from index.collection.database import Database, JsonRow, to_json
from index.collection.scope import EVERYTHING, Scope
from index.documents.parse import ParsedDocument
from index.documents.split import Passage
from index.interface import EVERYONE, DocumentInfo, DocumentText, Page, Record, StoredPassage
from local_llm.errors import IntegrityError, NotFoundError
from local_llm.identifiers import new_id, now
from local_llm.permissions import Principals

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]

# True for every document that :principals (JSON, or NULL for all) may see.
VISIBLE = """(
    :principals IS NULL OR allow IS NULL
    OR EXISTS (SELECT 1 FROM json_each(allow) AS a JOIN json_each(:principals) AS p ON a.value = p.value)
)"""

_INFO = """id, name, filename, file_id, title, version, media_type, allow, attributes, passages, created_at"""


@dataclass(frozen=True)
class StoredDocument:
    """What decides whether a file brings anything new, and what goes when it does."""

    number: int
    id: str
    name: str
    version: int
    sha256: str
    splitting: dict[str, int]
    allow: Principals
    attributes: dict[str, Scalar]
    first_passage: int
    passages: int

    @property
    def passage_ids(self) -> Ids:
        return np.arange(self.first_passage, self.first_passage + self.passages)


@dataclass(frozen=True)
class Access:
    """What was asked for with a document, as `Index.add` takes it: None leaves what is there."""

    allow: tuple[str, ...] | None = None
    attributes: dict[str, Scalar] | None = None

    def over(self, old: StoredDocument | None) -> tuple[Principals, dict[str, Scalar]]:
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
    """A document ready to be written. vectors: float32 [passages, dimension], rows of length 1."""

    name: str
    filename: str
    sha256: str
    parsed: ParsedDocument
    passages: Sequence[Passage]
    vectors: Vectors
    access: Access
    splitting: dict[str, int]
    file_id: str | None = None


@dataclass(frozen=True)
class Written:
    """A document as it was just written, for the views that follow."""

    number: int
    old_passages: Ids
    passages: Ids
    vectors: Vectors
    allow_json: str | None
    attributes: dict[str, Scalar]

    @property
    def replaced(self) -> bool:
        return len(self.old_passages) > 0


@dataclass(frozen=True)
class Counts:
    documents: int
    passages: int
    characters: int


# Writing, inside a transaction


def write_document(
    connection: sqlite3.Connection, document: NewDocument, old: StoredDocument | None, first_passage: int
) -> Written:
    """Raises: IntegrityError if a passage lies outside the text."""
    _verify_offsets(document)
    if old:
        delete_document(connection, old)
    allow, attributes = document.access.over(old)
    number = connection.execute(
        f"INSERT INTO documents VALUES ({', '.join('?' * 17)})",
        (
            old.number if old else None,
            old.id if old else new_id("doc_"),
            document.name,
            document.filename,
            document.file_id,
            document.parsed.title,
            old.version + 1 if old else 1,
            document.sha256,
            document.parsed.media_type,
            to_json(document.splitting),
            to_json(allow),
            to_json(attributes),
            now(),
            first_passage,
            len(document.passages),
            len(document.parsed.text),
            document.parsed.text,
        ),
    ).lastrowid
    assert number is not None
    pages = [(number, page.number, page.start, page.end) for page in document.parsed.pages]
    connection.executemany("INSERT INTO pages VALUES (?, ?, ?, ?)", pages)
    _write_passages(connection, number, document, first_passage)
    return Written(
        number=number,
        old_passages=old.passage_ids if old else np.empty(0, np.int64),
        passages=np.arange(first_passage, first_passage + len(document.passages)),
        vectors=document.vectors,
        allow_json=to_json(allow),
        attributes=attributes,
    )


def delete_document(connection: sqlite3.Connection, old: StoredDocument) -> None:
    """Its pages, passages and vectors of every generation go with it; its words have to be told."""
    text = connection.execute("SELECT text FROM documents WHERE number = ?", (old.number,)).fetchone()[0]
    passages = connection.execute(
        "SELECT id, start_char, end_char, context FROM passages WHERE document = ?", (old.number,)
    ).fetchall()
    connection.executemany(
        "INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)",
        [(one["id"], one["context"] + text[one["start_char"] : one["end_char"]]) for one in passages],
    )
    connection.execute("DELETE FROM documents WHERE number = ?", (old.number,))


def write_vectors(connection: sqlite3.Connection, generation: int, number: int, vectors: Vectors) -> None:
    blob = np.ascontiguousarray(vectors, "<f4").tobytes()
    connection.execute(f"INSERT INTO vectors_{generation} VALUES (?, ?)", (number, blob))


def next_passage(connection: sqlite3.Connection) -> int:
    """An id above every one that ever was."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'passages'").fetchone()
    return 1 if row is None else int(row[0]) + 1


def _write_passages(connection: sqlite3.Connection, number: int, document: NewDocument, first: int) -> None:
    rows, words = [], []
    for identifier, passage in enumerate(document.passages, first):
        rows.append(
            (
                identifier,
                number,
                passage.start,
                passage.end,
                passage.page,
                passage.heading,
                passage.context,
                passage.tokens,
            )
        )
        words.append((identifier, passage.encoded))
    connection.executemany("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", words)


def _verify_offsets(document: NewDocument) -> None:
    length = len(document.parsed.text)
    for passage in document.passages:
        inside = 0 <= passage.start < passage.end <= length
        if not inside or passage.encoded != passage.context + document.parsed.text[passage.start : passage.end]:
            raise IntegrityError(f"{document.name}: characters {passage.start}-{passage.end} are not the passage")


# Reading


def find(database: Database, name: str) -> StoredDocument | None:
    if not is_storable(name):
        return None
    rows = database.read(
        """SELECT number, id, name, version, sha256, splitting, allow, attributes, first_passage, passages
        FROM documents WHERE name = :name""",
        name=name,
    )
    if not rows:
        return None
    splitting = json.loads(rows[0]["splitting"])
    return StoredDocument(**{**rows[0], **_access(rows[0]), "splitting": splitting})


def find_visible(database: Database, names: Sequence[str], principals: Principals) -> list[StoredDocument]:
    """Raises: NotFoundError naming those that are not there or not visible."""
    found = {name: find(database, name) for name in names}
    visible = [one for one in found.values() if one is not None and Scope(principals).admits(one.allow, {})]
    if len(visible) < len(found):
        missing = found.keys() - {one.name for one in visible}
        raise NotFoundError(f"no such document: {', '.join(map(readable, sorted(missing)))}", param="document")
    return visible


def infos(database: Database, principals: Principals) -> list[DocumentInfo]:
    rows = database.read(
        f"SELECT {_INFO} FROM documents WHERE {VISIBLE} ORDER BY name", principals=storable(principals)
    )
    return [DocumentInfo(**{**row, **_access(row)}) for row in rows]


def named(database: Database, names: Sequence[str]) -> list[int]:
    """Numbers of the documents of these names that are there."""
    rows = database.read(
        "SELECT number FROM documents WHERE name IN (SELECT value FROM json_each(:names))",
        names=to_json([name for name in names if is_storable(name)]),  # its JSON ends a text at a NUL
    )
    return [row["number"] for row in rows]


def records(database: Database, numbers: Sequence[int] | None, scope: Scope) -> list[Record]:
    """Those of the documents (None: of all) that are there and within the scope, in the order of their numbers."""
    rows = _within(database, "name, title, text", numbers, scope)
    return [Record(row["name"], row["text"], row["title"], row["attributes"]) for row in rows]


def names(database: Database, numbers: Sequence[int] | None, scope: Scope) -> list[str]:
    """Of those that records() would return."""
    return [row["name"] for row in _within(database, "name", numbers, scope)]


def _within(database: Database, columns: str, numbers: Sequence[int] | None, scope: Scope) -> Iterator[JsonRow]:
    source = "documents" if numbers is None else "json_each(:numbers) JOIN documents ON number = value"
    rows = database.read(
        f"SELECT number, {columns}, allow, attributes FROM {source} ORDER BY number", numbers=to_json(numbers)
    )
    for row in rows:
        access = _access(row)
        if scope.admits(access["allow"], access["attributes"]):
            yield {**row, **access}


def text_of(database: Database, identifier: str, version: int | None, principals: Principals) -> DocumentText:
    """Raises: NotFoundError if it is not there, not visible, or of another version."""
    with database.one_commit():
        rows = database.read(
            f"""SELECT number, id, name, filename, file_id, title, version, media_type, text FROM documents
            WHERE id = :id AND {VISIBLE}""",
            id=readable(identifier),
            principals=storable(principals),
        )
        pages = _pages(database, rows[0].pop("number")) if rows else ()
    if not rows:
        raise NotFoundError(f"no such document: {readable(identifier)}", param="document_id")
    if version not in (None, rows[0]["version"]):
        raise NotFoundError(
            f"version {version} of {rows[0]['name']} was replaced by version {rows[0]['version']}",
            param="version",
        )
    return DocumentText(**rows[0], pages=pages)


def current_versions(
    database: Database, versions: Sequence[tuple[str, int]], principals: Principals
) -> list[tuple[str, int]]:
    """Those of the documents, as (id, version), that are there in that version and visible."""
    rows = database.read(
        f"""SELECT id, version FROM documents
        WHERE id IN (SELECT value FROM json_each(:ids)) AND {VISIBLE}""",
        ids=to_json([readable(identifier) for identifier, _ in versions]),
        principals=storable(principals),
    )
    there = {(row["id"], row["version"]) for row in rows}
    return [one for one in versions if one in there]


def counts(database: Database, principals: Principals) -> Counts:
    rows = database.read(
        f"""SELECT count(*) AS documents, coalesce(sum(passages), 0) AS passages,
            coalesce(sum(characters), 0) AS characters
        FROM documents WHERE {VISIBLE}""",
        principals=storable(principals),
    )
    return Counts(**rows[0])


def hit_rows(database: Database, ids: Sequence[int], scope: Scope) -> dict[int, JsonRow]:
    """What a hit tells of those of the passages that are there and within the scope, by their ids."""
    rows = database.read(
        """SELECT p.id AS passage_id, d.id AS document_id, name AS document, filename, file_id, title, version,
            page, heading, start_char AS start, end_char AS "end", allow, attributes,
            substr(text, start_char + 1, end_char - start_char) AS text
        FROM json_each(:ids) JOIN passages AS p ON p.id = value JOIN documents AS d ON d.number = p.document""",
        ids=to_json(list(ids)),
    )
    found = {}
    for row in rows:
        access = _access({"allow": row.pop("allow"), "attributes": row["attributes"]})
        if scope.admits(access["allow"], access["attributes"]):
            found[row["passage_id"]] = {**row, "attributes": access["attributes"]}
    return found


def text_between(database: Database, passage_id: int, start: int, end: int) -> str | None:
    """Characters [start, end) of the text that a passage is of; None if there is no such passage."""
    rows = database.read(
        """SELECT substr(text, :start + 1, :end - :start) AS text
        FROM passages AS p JOIN documents AS d ON d.number = p.document WHERE p.id = :id""",
        id=passage_id,
        start=start,
        end=end,
    )
    return rows[0]["text"] if rows else None


def passages_after(database: Database, passage_id: int, limit: int, principals: Principals) -> list[StoredPassage]:
    """Of visible documents, with ids above `passage_id`, by their ids."""
    rows = database.read(
        f"""SELECT p.id, d.id AS document_id, name AS document,
            context || substr(text, start_char + 1, end_char - start_char) AS text
        FROM passages AS p JOIN documents AS d ON d.number = p.document
        WHERE p.id > :after AND {VISIBLE} ORDER BY p.id LIMIT :limit""",
        after=passage_id,
        limit=limit,
        principals=storable(principals),
    )
    return [StoredPassage(**row) for row in rows]


def encoded_passages(database: Database, number: int) -> list[str]:
    """What was encoded of a document, in order."""
    rows = database.read(
        """SELECT start_char, end_char, context FROM passages WHERE document = :number ORDER BY id""", number=number
    )
    text = database.read("SELECT text FROM documents WHERE number = :number", number=number)
    return [one["context"] + text[0]["text"][one["start_char"] : one["end_char"]] for one in rows]


def vectors_of(database: Database, generation: int, number: int, passages: int) -> Vectors | None:
    rows = database.read(f"SELECT vectors FROM vectors_{generation} WHERE document = :number", number=number)
    return np.frombuffer(rows[0]["vectors"], "<f4").reshape(passages, -1) if rows else None


def spread_texts(database: Database, count: int) -> list[str]:
    """Texts of at most `count` passages, from all over the collection."""
    ids = _spread(database, "SELECT id FROM passages ORDER BY id", count)
    return [row["text"] for row in hit_rows(database, ids, EVERYTHING).values()]


def spread_vectors(database: Database, generation: int, count: int) -> Vectors:
    """The first vectors of at most `count` documents: float32 [documents, dimension]."""
    numbers = _spread(database, "SELECT number FROM documents ORDER BY number", count)
    found = database.read(
        f"""SELECT passages, vectors FROM json_each(:numbers) JOIN documents ON number = value
        JOIN vectors_{generation} ON document = number""",
        numbers=to_json(numbers),
    )
    return np.array([np.frombuffer(row["vectors"], "<f4").reshape(row["passages"], -1)[0] for row in found])


def _spread(database: Database, query: str, count: int) -> list[int]:
    numbers = [row[0] for row in database.iterate(query)]
    return numbers[:: max(1, len(numbers) // count)][:count]


def storable(principals: Principals) -> str | None:
    """As VISIBLE takes them. What no document can name opens none: SQLite's JSON ends a text at its first NUL."""
    return to_json(None if principals is None else [one for one in principals if is_storable(one)])


def readable(name: str) -> str:
    """As a query takes it: what cannot be stored finds nothing."""
    return name if is_storable(name) else ascii(name)


def _pages(database: Database, number: int) -> tuple[Page, ...]:
    rows = database.read(
        """SELECT number, start_char AS start, end_char AS "end" FROM pages
        WHERE document = :document ORDER BY number""",
        document=number,
    )
    return tuple(Page(**row) for row in rows)


def _access(row: JsonRow) -> dict[str, Any]:
    allow = row["allow"]
    try:
        return {
            "allow": None if allow is None else tuple(json.loads(allow)),
            "attributes": json.loads(row["attributes"]),
        }
    except ValueError as error:
        raise IntegrityError(f"who may see a document cannot be read: {error}") from error
