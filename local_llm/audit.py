"""The audit log: who did what, and who asked what from which documents. Entries may trail by a second.

Which documents an answer saw is always noted; questions and answers only where the project says `log_content`.
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, select

from local_llm.errors import NotFoundError
from local_llm.identifiers import new_ordered_id, now
from local_llm.permissions import Caller
from local_llm.state import AuditEntry, State
from local_llm.trailing import still_wanted

ID_PREFIX = "audit_log-"
ANSWERED = "answer.created"
SEARCHED = "vector_store.searched"
READ = "document.read"
# Entries that wait while the database takes none. Beyond, the oldest go; how many is noted in their place.
MOST_WAITING = 100_000
LOST = "audit.lost"


@dataclass(frozen=True)
class Seen:
    """A passage that was put before the model."""

    document_id: str
    version: int


@dataclass(frozen=True)
class AuditQuery:
    """Which entries, the newest first. `before` an entry come those that are newer. Times are Unix seconds."""

    since: int | None = None  # included
    until: int | None = None  # not included
    project_ids: Sequence[str] = ()
    actions: Sequence[str] = ()
    key_ids: Sequence[str] = ()
    object_ids: Sequence[str] = ()
    after: str | None = None
    before: str | None = None
    limit: int = 20


class Audit:
    """Safe to call from any thread; only flush() and find() touch the database."""

    def __init__(self, state: State, most_waiting: int = MOST_WAITING):
        self._state = state
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # whoever looks something up flushes too: nothing is written twice
        self._waiting: deque[dict[str, Any]] = deque()
        self._lost = 0

    def note(
        self,
        caller: Caller,
        action: str,
        object_id: str | None,
        detail: Mapping[str, Any] | None = None,
        *,
        project_id: str | None = None,
    ) -> None:
        """`action` names what happened, as in "file.created"; `project_id` where, if not in the caller's."""
        entry = {  # its id is made when it is written: that takes longer than all the rest
            "project_id": project_id or caller.project_id,
            "created_at": now(),
            "key_id": caller.key_id,
            "action": action,
            "object_id": object_id,
            "detail": dict(detail or {}),
        }
        with self._lock:
            if len(self._waiting) >= self._most_waiting:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(entry)

    def answered(
        self,
        caller: Caller,
        model: str | None,
        collection_id: str | None,
        seen: Sequence[Seen],
        *,
        object_id: str | None = None,
        question: str | None = None,
        answer: str | None = None,
        action: str = ANSWERED,
    ) -> None:
        """A question that was answered from documents. `model`: as the client named it; `object_id`: the answer's.

        Question and answer may always be given: they are kept only where the caller's project says so.
        """
        documents = sorted({(one.document_id, one.version) for one in seen})
        detail: dict[str, Any] = {
            "model": model,
            "vector_store_id": collection_id,
            "documents": [{"id": document_id, "version": version} for document_id, version in documents],
        }
        if caller.keeps.log_content:
            detail |= {"question": question, "answer": answer}
        self.note(caller, action, object_id, detail)

    def flush(self) -> None:
        """Writes what waits, in one transaction, but for entries of projects that are gone.

        Raises: SQLAlchemyError, StateUnavailableError; everything waits on then.
        """
        with self._writing:
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            rows, lost = list(self._waiting), self._lost
        if not rows:
            return
        for row in rows:
            row.setdefault("id", new_ordered_id(ID_PREFIX))
        if lost:
            rows.insert(0, {**rows[0], "id": new_ordered_id(ID_PREFIX), "key_id": None, "action": LOST,
                            "object_id": None, "detail": {"entries": lost}})  # fmt: skip
        with self._state.session() as session:
            kept = still_wanted(session, "the audit log", rows, itemgetter("project_id"))
            if kept:
                # An answer to a commit that was lost on its way: they are there, and are written again.
                insert = self._state.upsert(AuditEntry).on_conflict_do_nothing(index_elements=["id"])
                session.execute(insert, kept)
        with self._lock:
            written = {row["id"] for row in rows}
            while self._waiting and self._waiting[0].get("id") in written:
                self._waiting.popleft()
            self._lost -= lost

    def find(self, query: AuditQuery) -> tuple[list[AuditEntry], bool]:
        """A page of entries, the newest first, and whether there is more in its direction.

        Raises: NotFoundError if `after` or `before` is no entry.
        """
        newer = query.before is not None and query.after is None
        order = AuditEntry.sequence.asc() if newer else AuditEntry.sequence.desc()
        with self._state.reading() as session:
            statement = select(AuditEntry).where(*_conditions(query))
            cursor = query.before if newer else query.after
            if cursor is not None:
                place = session.scalar(select(AuditEntry.sequence).where(AuditEntry.id == cursor))
                if place is None:
                    raise NotFoundError(
                        f"there is no audit log {cursor!r:.80}", param="before" if newer else "after"
                    )
                statement = statement.where(AuditEntry.sequence > place if newer else AuditEntry.sequence < place)
            rows = list(session.scalars(statement.order_by(order).limit(query.limit + 1)))
        page = rows[: query.limit]
        return page[::-1] if newer else page, len(rows) > query.limit


def _conditions(query: AuditQuery) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if query.since is not None:
        wanted.append(AuditEntry.created_at >= query.since)
    if query.until is not None:
        wanted.append(AuditEntry.created_at < query.until)
    for column, values in (
        (AuditEntry.project_id, query.project_ids),
        (AuditEntry.action, query.actions),
        (AuditEntry.key_id, query.key_ids),
        (AuditEntry.object_id, query.object_ids),
    ):
        if values:
            wanted.append(column.in_(values))
    return wanted
