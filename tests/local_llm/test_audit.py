"""The audit log tells who did what; what was said only where the project wants it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from local_llm.audit import LOST, Audit, AuditQuery, Seen
from local_llm.errors import NotFoundError
from local_llm.permissions import Caller, Keeps
from local_llm.postgresql import StateUnavailableError
from local_llm.projects import ProjectStore
from local_llm.retention import Retention
from local_llm.settings import ServerSettings
from local_llm.state import State

BOTH_DATABASES = True


@pytest.fixture
def audit(state: State) -> Audit:
    return Audit(state)


def actions(audit: Audit, query: AuditQuery | None = None) -> list[str]:
    return [entry.action for entry in audit.find(query or AuditQuery())[0]]


def test_entries_are_found_the_newest_first_page_by_page(audit: Audit, admin: Caller) -> None:
    for number in range(5):
        audit.note(admin, f"file.{number}", f"file-{number}")
    audit.flush()
    page, more = audit.find(AuditQuery(limit=2))
    assert ([one.action for one in page], more) == (["file.4", "file.3"], True)
    page, more = audit.find(AuditQuery(limit=3, after=page[-1].id))
    assert ([one.action for one in page], more) == (["file.2", "file.1", "file.0"], False)
    page, more = audit.find(AuditQuery(limit=2, before=page[-1].id))
    assert ([one.action for one in page], more) == (["file.2", "file.1"], True)
    with pytest.raises(NotFoundError):
        audit.find(AuditQuery(after="audit_log-none"))


def test_entries_are_filtered(state: State, audit: Audit, admin: Caller) -> None:
    other = ProjectStore(state).create("other")
    audit.note(admin, "file.created", "file-1")
    audit.note(replace(admin, key_id="key_1"), "file.deleted", "file-1")
    audit.note(admin, "project.created", other.id, project_id=other.id)
    audit.flush()
    assert actions(audit, AuditQuery(object_ids=["file-1"])) == ["file.deleted", "file.created"]
    assert actions(audit, AuditQuery(key_ids=["key_1"])) == ["file.deleted"]
    assert actions(audit, AuditQuery(project_ids=[other.id])) == ["project.created"]
    assert actions(audit, AuditQuery(actions=["file.created", "x"])) == ["file.created"]
    assert actions(audit, AuditQuery(until=5)) == []
    assert len(actions(audit, AuditQuery(since=5))) == 3


def test_an_answer_is_noted_with_its_documents_and_without_its_words(audit: Audit, admin: Caller) -> None:
    seen = [Seen("doc_2", 1), Seen("doc_1", 3), Seen("doc_2", 1)]
    for caller in (admin, replace(admin, keeps=Keeps(log_content=True))):
        audit.answered(caller, "help", "vs_1", seen, object_id="chatcmpl-1", question="Who?", answer="Me.")
    audit.flush()
    with_words, without = audit.find(AuditQuery())[0]
    documents = [{"id": "doc_1", "version": 3}, {"id": "doc_2", "version": 1}]
    assert without.detail == {"model": "help", "vector_store_id": "vs_1", "documents": documents}
    assert with_words.detail == {**without.detail, "question": "Who?", "answer": "Me."}


def test_what_could_not_be_written_is_written_later_in_its_order(state: State, audit: Audit, admin: Caller) -> None:
    audit.note(admin, "first", None)
    with state.session() as session:
        session.execute(text("ALTER TABLE audit RENAME TO elsewhere"))
    with pytest.raises(SQLAlchemyError):
        audit.flush()
    audit.note(admin, "second", None)
    with state.session() as session:
        session.execute(text("ALTER TABLE elsewhere RENAME TO audit"))
    audit.flush()
    audit.flush()
    assert actions(audit) == ["second", "first"]


def test_entries_of_a_project_that_is_gone_hold_up_no_others(state: State, audit: Audit, admin: Caller) -> None:
    """Nothing was written any more, of no project, until the server was started again."""
    audit.note(replace(admin, project_id="proj_gone"), "file.created", "file-1")
    audit.note(admin, "file.created", "file-2")
    audit.flush()
    audit.note(replace(admin, project_id="proj_gone"), "file.created", "file-3")
    audit.flush()
    audit.note(admin, "file.created", "file-4")
    audit.flush()
    assert [entry.object_id for entry in audit.find(AuditQuery())[0]] == ["file-4", "file-2"]


def test_two_that_flush_at_once_write_an_entry_once(state: State, audit: Audit, admin: Caller) -> None:
    audit.note(admin, "file.created", "file-1")
    with ThreadPoolExecutor(8) as pool, state.session():  # they all come before any of them may write
        flushed = [pool.submit(audit.flush) for _ in range(8)]
        time.sleep(0.2)
    assert [one.exception() for one in flushed] == [None] * 8
    assert actions(audit) == ["file.created"]


def test_what_memory_cannot_hold_is_told(state: State, admin: Caller) -> None:
    audit = Audit(state, most_waiting=2)
    for number in range(5):
        audit.note(admin, str(number), None)
    audit.flush()
    entries = audit.find(AuditQuery())[0]
    assert [entry.action for entry in entries] == ["4", "3", LOST]
    assert entries[-1].detail == {"entries": 3}


def test_old_entries_go_when_their_time_is_over(state: State, audit: Audit, admin: Caller) -> None:
    audit.note(admin, "old", None)
    audit.flush()
    with state.session() as session:
        session.execute(text("UPDATE audit SET created_at = 5"))
    audit.note(admin, "new", None)
    audit.flush()
    for_ever = ServerSettings(audit_days=0, usage_days=0)  # type: ignore[call-arg]
    Retention(state, for_ever).sweep()
    assert actions(audit) == ["new", "old"]
    Retention(state, ServerSettings()).sweep_daily()  # type: ignore[call-arg]
    assert actions(audit) == ["new"]


class AnswerLost:
    """A state whose first commit is made, but whose answer does not arrive."""

    def __init__(self, state: State):
        self._state = state
        self._lost = False

    @contextmanager
    def session(self) -> Iterator[Session]:
        with self._state.session() as session:
            yield session
        if not self._lost:
            self._lost = True
            raise StateUnavailableError("the answer was lost")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)


def test_a_commit_whose_answer_was_lost_is_not_written_twice(state: State, admin: Caller) -> None:
    audit = Audit(cast(State, AnswerLost(state)))
    audit.note(admin, "key.created", "key_1")
    with pytest.raises(StateUnavailableError):
        audit.flush()
    audit.note(admin, "key.created", "key_2")
    audit.flush()
    entries, _ = audit.find(AuditQuery())
    assert [entry.object_id for entry in entries] == ["key_2", "key_1"]
