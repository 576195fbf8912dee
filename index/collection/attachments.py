"""Files of the API as rows of a collection: a durable queue of uploads to be indexed, and what became of each.

A file is listed if it is attached, or if it is a document that came in another way. A document says of itself who
may see it; an attachment says so as long as there is none.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from index.collection.attributes import Scalar
from index.collection.database import Database, JsonRow, to_json
from index.collection.documents import VISIBLE, readable, storable
from index.interface import AttachedFile, FileCounts, FilePage, FileQuery
from local_llm.errors import NotFoundError
from local_llm.identifiers import new_id, now
from local_llm.permissions import Principals

IN_PROGRESS = "in_progress"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"

_BYTES = """coalesce(d.characters + 4 * d.passages
    * (SELECT dimension FROM generations WHERE active), 0) AS bytes"""

_ATTACHED = f"""SELECT a.file_id AS id, a.status, a.error_code, a.error_message, a.created_at, a.filename,
        d.id AS document_id, a.batch, a.newest, 0 AS kind, a.sequence AS place, {_BYTES},
        CASE WHEN d.id IS NULL THEN a.allow ELSE d.allow END AS allow,
        coalesce(d.attributes, a.attributes) AS attributes, coalesce(d.splitting, a.splitting) AS splitting
    FROM attachments AS a LEFT JOIN documents AS d ON d.file_id = a.file_id
    WHERE (a.status != 'completed' OR d.number IS NOT NULL)"""

_OTHERS = f"""SELECT coalesce(d.file_id, d.id) AS id, 'completed' AS status, NULL AS error_code,
        NULL AS error_message, d.created_at, d.filename, d.id AS document_id, NULL AS batch, 1 AS newest, 1 AS kind,
        d.number AS place, {_BYTES}, d.allow, d.attributes, d.splitting
    FROM documents AS d WHERE NOT EXISTS (SELECT 1 FROM attachments WHERE file_id = d.file_id)"""


@dataclass(frozen=True)
class NewAttachment:
    """`allow` and `attributes` are what the document is to have, whatever it had; sizes None: of the settings."""

    file_id: str
    filename: str
    allow: Principals
    attributes: dict[str, Scalar]
    chunk_tokens: int | None
    overlap_tokens: int | None


@dataclass(frozen=True)
class WaitingAttachment(NewAttachment):
    sequence: int


@dataclass(frozen=True)
class _Place:
    """Where a file stands among all that are listed: in order of time, those attached before others."""

    created_at: int
    kind: int
    place: int


class Attachments:
    """Changes are on the disk when a method returns. With `lock` several are as one."""

    def __init__(self, database: Database):
        self._database = database
        self.lock = database.lock

    # Coming and going

    def add(self, attachments: Sequence[NewAttachment], *, as_batch: bool = False) -> str | None:
        """Queues them, the last request for a file being the one that counts. Returns: the id of the batch."""
        batch = new_id("vsfb_") if as_batch else None
        files = [(one.file_id,) for one in attachments]
        with self._database.transaction() as connection:
            if batch is not None:
                connection.execute("INSERT INTO batches VALUES (?, 0, ?)", (batch, now()))
            connection.executemany(
                "DELETE FROM attachments WHERE file_id = ? AND batch IS NULL AND status != 'in_progress'", files
            )
            # Whoever works off an older request of a file must not give it the access of that one.
            connection.executemany(
                "UPDATE attachments SET newest = 0, allow = ?, attributes = ? WHERE file_id = ?",
                [(to_json(one.allow), to_json(one.attributes), one.file_id) for one in attachments],
            )
            connection.executemany(
                """INSERT INTO attachments
                (file_id, batch, filename, allow, attributes, splitting, status, created_at, newest)
                VALUES (?, ?, ?, ?, ?, ?, 'in_progress', ?, 1)""",
                [
                    (
                        one.file_id,
                        batch,
                        one.filename,
                        to_json(one.allow),
                        to_json(one.attributes),
                        to_json({"chunk_tokens": one.chunk_tokens, "overlap_tokens": one.overlap_tokens}),
                        now(),
                    )
                    for one in attachments
                ],
            )
        return batch

    def remove(self, file_ids: Sequence[str]) -> None:
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM attachments WHERE file_id = ?", [(one,) for one in file_ids])

    def remove_all(self) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM attachments")
            connection.execute("DELETE FROM batches")

    def set_access(self, file_id: str, allow: Principals, attributes: dict[str, Scalar]) -> None:
        """Of a file that is no document yet. A document's own access is told to its attachments by the store."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE attachments SET allow = ?, attributes = ? WHERE file_id = ?",
                (to_json(allow), to_json(attributes), file_id),
            )

    def cancel(self, batch: str, principals: Principals) -> None:
        """Those of its files that are still on their way, and that these principals may see, stay out."""
        rows = self._database.read(
            f"SELECT place FROM ({_ATTACHED} AND a.batch = :batch AND a.status = 'in_progress') WHERE {VISIBLE}",
            batch=batch,
            principals=storable(principals),
        )
        with self._database.transaction() as connection:
            connection.execute("UPDATE batches SET cancelled = 1 WHERE id = ?", (batch,))
            connection.executemany(
                "UPDATE attachments SET status = 'cancelled' WHERE sequence = ? AND status = 'in_progress'",
                [(row["place"],) for row in rows],
            )

    # Working them off

    def any_waiting(self) -> bool:
        return bool(self._database.read("SELECT 1 FROM attachments WHERE status = 'in_progress' LIMIT 1"))

    def waiting(self, limit: int) -> list[WaitingAttachment]:
        """The requests that wait longest; of several for one file, the last of them."""
        rows = self._database.read(
            """SELECT sequence, file_id, filename, allow, attributes, splitting FROM attachments
            WHERE status = 'in_progress' ORDER BY sequence LIMIT :limit""",
            limit=limit,
        )
        return list({row["file_id"]: _waiting(row) for row in rows}.values())

    def still_waiting(self, taken: WaitingAttachment) -> WaitingAttachment | None:
        """The same as it is to be done now; None if it was cancelled or detached."""
        rows = self._database.read(
            """SELECT max(sequence) AS sequence, file_id, filename, allow, attributes, splitting FROM attachments
            WHERE status = 'in_progress' AND file_id = :file_id AND sequence <= :sequence GROUP BY file_id""",
            file_id=taken.file_id,
            sequence=taken.sequence,
        )
        return _waiting(rows[0]) if rows else None

    def finish(self, taken: Sequence[WaitingAttachment]) -> None:
        """Their documents are durable and searches find them."""
        self._end([(COMPLETED, None, None, one.file_id, one.sequence) for one in taken])

    def fail(self, taken: WaitingAttachment, code: str, message: str) -> None:
        self._end([(FAILED, code, message, taken.file_id, taken.sequence)])

    def _end(self, ends: Sequence[tuple[str, str | None, str | None, str, int]]) -> None:
        with self._database.transaction() as connection:
            connection.executemany(
                """UPDATE attachments SET status = ?, error_code = ?, error_message = ?
                WHERE file_id = ? AND sequence <= ? AND status = 'in_progress'""",
                ends,
            )

    # Reading

    def newest(self, file_id: str) -> WaitingAttachment | None:
        """The last request for a file, if it is still to be done."""
        rows = self._database.read(
            """SELECT sequence, file_id, filename, allow, attributes, splitting FROM attachments
            WHERE file_id = :file_id AND newest = 1 AND status = 'in_progress'""",
            file_id=file_id,
        )
        return _waiting(rows[0]) if rows else None

    def file_ids(self) -> set[str]:
        """Every upload that is attached, or that a document was made of."""
        query = "SELECT file_id FROM attachments UNION SELECT file_id FROM documents WHERE file_id IS NOT NULL"
        return {row[0] for row in self._database.iterate(query)}

    def allows(self, file_id: str) -> list[Principals]:
        """Who may see the document of this upload, or will: at most one entry."""
        rows = self._database.read(
            f"SELECT allow FROM ({_ATTACHED} AND a.newest = 1 AND a.file_id = :id)", id=file_id
        )
        rows = rows or self._database.read("SELECT allow FROM documents WHERE file_id = :id", id=file_id)
        return [_principals(row["allow"]) for row in rows]

    def holds(self, file_id: str) -> bool:
        """Whether this upload is attached, or a document was made of it."""
        query = (
            "SELECT 1 FROM attachments WHERE file_id = :id UNION ALL SELECT 1 FROM documents WHERE file_id = :id"
        )
        return bool(self._database.read(query, id=file_id))

    def file(self, identifier: str, principals: Principals) -> AttachedFile:
        """Raises: NotFoundError if it is not there or not visible."""
        return _file(self._row(identifier, principals, None, "file_id"))

    def files(self, query: FileQuery, principals: Principals) -> FilePage:
        """Raises: NotFoundError if `after` or `before` is none of those that are visible."""
        backwards = query.before is not None and query.after is None
        descending = (query.order == "desc") != backwards
        cursor = None
        for param in ("after", "before"):
            identifier = getattr(query, param)
            if identifier is not None and cursor is None:
                row = self._row(identifier, principals, query.batch, param)
                cursor = _Place(row["created_at"], row["kind"], row["place"])
        rows = self._listed(query, principals, cursor, descending)
        page = rows[: query.limit]
        return FilePage([_file(row) for row in (page[::-1] if backwards else page)], len(rows) > query.limit)

    def counts(self, principals: Principals, batch: str | None = None) -> FileCounts:
        chosen = "a.newest = 1" if batch is None else "a.batch = :batch"
        rows = self._database.read(
            f"SELECT status, count(*) AS files FROM ({_ATTACHED} AND {chosen}) WHERE {VISIBLE} GROUP BY status",
            batch=batch,
            principals=storable(principals),
        )
        counts = {row["status"]: row["files"] for row in rows}
        if batch is None:
            counts[COMPLETED] = counts.get(COMPLETED, 0) + self._count_others(principals)
        return FileCounts(**counts)

    def batch(self, identifier: str) -> JsonRow:
        """Raises: NotFoundError."""
        rows = self._database.read("SELECT * FROM batches WHERE id = :id", id=readable(identifier))
        if not rows:
            raise _no_batch(identifier)
        return rows[0]

    def visible_batch(self, identifier: str, principals: Principals) -> tuple[JsonRow, FileCounts]:
        """Raises: NotFoundError, also if none of its files is visible."""
        row, counts = self.batch(identifier), self.counts(principals, identifier)
        if counts.total == 0 and self.counts(None, identifier).total:
            raise _no_batch(identifier)
        return row, counts

    def _row(self, identifier: str, principals: Principals, batch: str | None, param: str) -> JsonRow:
        chosen = "a.newest = 1" if batch is None else "a.batch = :batch"
        queries = [f"SELECT * FROM ({_ATTACHED} AND {chosen} AND a.file_id = :id) WHERE {VISIBLE}"]
        if batch is None:
            queries.append(f"SELECT * FROM ({_OTHERS} AND d.id = :id) WHERE {VISIBLE}")
            queries.append(f"SELECT * FROM ({_OTHERS} AND d.file_id = :id) WHERE {VISIBLE}")
        for query in queries:
            rows = self._database.read(query, id=readable(identifier), batch=batch, principals=storable(principals))
            if rows:
                return rows[0]
        raise NotFoundError(f"No file found with id '{identifier:.80}'.", param=param)

    def _listed(
        self, query: FileQuery, principals: Principals, cursor: _Place | None, descending: bool
    ) -> list[JsonRow]:
        """One more than asked for, to tell whether there are more. Each kind is read along an index of its own."""
        chosen = "a.newest = 1" if query.batch is None else "a.batch = :batch"
        branches = [f"{_ATTACHED} AND {chosen}" + (" AND a.status = :status" if query.status else "")]
        if query.batch is None and query.status in (None, COMPLETED):
            branches.append(_OTHERS)
        compare, direction = ("<", "DESC") if descending else (">", "ASC")
        beyond = f"created_at {compare}= :time AND (created_at, kind, place) {compare} (:time, :kind, :place)"
        found: list[JsonRow] = []
        for branch in branches:
            found += self._database.read(
                f"""SELECT * FROM ({branch}) WHERE {VISIBLE} {"AND " + beyond if cursor else ""}
                ORDER BY created_at {direction}, place {direction} LIMIT :limit""",
                batch=query.batch,
                status=query.status,
                principals=storable(principals),
                time=cursor and cursor.created_at,
                kind=cursor and cursor.kind,
                place=cursor and cursor.place,
                limit=query.limit + 1,
            )
        found.sort(key=lambda row: (row["created_at"], row["kind"], row["place"]), reverse=descending)
        return found[: query.limit + 1]

    def _count_others(self, principals: Principals) -> int:
        # An admin's need not look at the rows of documents: an index has what is asked.
        visible = "" if principals is None else f"AND {VISIBLE}"
        rows = self._database.read(
            f"""SELECT count(*) AS files FROM documents
            WHERE NOT EXISTS (SELECT 1 FROM attachments WHERE file_id = documents.file_id) {visible}""",
            principals=storable(principals),
        )
        return int(rows[0]["files"])


def _no_batch(identifier: str) -> NotFoundError:
    return NotFoundError(f"No file batch found with id '{identifier:.80}'.", param="batch_id")


def _principals(allow: str | None) -> Principals:
    return None if allow is None else tuple(json.loads(allow))


def _waiting(row: JsonRow) -> WaitingAttachment:
    return WaitingAttachment(
        sequence=row["sequence"],
        file_id=row["file_id"],
        filename=row["filename"],
        allow=_principals(row["allow"]),
        attributes=json.loads(row["attributes"]),
        **json.loads(row["splitting"]),
    )


def _file(row: JsonRow) -> AttachedFile:
    splitting: dict[str, Any] = json.loads(row["splitting"])
    return AttachedFile(
        id=row["id"],
        status=row["status"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        created_at=row["created_at"],
        filename=row["filename"],
        document_id=row["document_id"],
        allow=_principals(row["allow"]),
        attributes=json.loads(row["attributes"]),
        chunk_tokens=splitting["chunk_tokens"],
        overlap_tokens=splitting["overlap_tokens"],
        bytes=row["bytes"],
    )
