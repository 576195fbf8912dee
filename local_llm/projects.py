"""Projects: the tenants of a box. Keys, files, jobs, adapters, collections and profiles belong to one each."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from local_llm.adapters import AdapterRegistry
from local_llm.errors import ConflictError, InvalidInputError, NotFoundError
from local_llm.files import FileStore
from local_llm.identifiers import new_ordered_id, now
from local_llm.permissions import Caller, local_admin
from local_llm.run_folders import ANSWERS, EVALUATION, RETRIEVER, of_project
from local_llm.settings import Settings
from local_llm.state import (
    LOCAL_PROJECT,
    Adapter,
    AuditEntry,
    BatchRow,
    ChatRow,
    Collection,
    File,
    Job,
    JobCheckpoint,
    JobEvent,
    Key,
    LedgerEntry,
    ProfileRow,
    Project,
    ResponseRow,
    RestrictedRow,
    State,
    UsageRow,
)

ID_PREFIX = "proj_"
LONGEST_NAME = 128
FLAGS = ("log_content", "store_chats", "store_responses")
QUOTAS = ("file_quota_bytes", "collection_quota_bytes")
# All that can be set of a project beside its name: commands and API show and take each of these.
VALUES = (*FLAGS, *QUOTAS)
# What goes with a project by rows alone: files, adapters and keys are deleted one by one.
TABLES = (ProfileRow, Job, BatchRow, ChatRow, ResponseRow, RestrictedRow, LedgerEntry, AuditEntry, UsageRow)


@dataclass(frozen=True)
class Removed:
    """How many of each went with a project."""

    keys: int
    files: int
    adapters: int
    jobs: int
    retriever_runs: int
    evaluations: int


class ProjectStore:
    def __init__(self, state: State):
        self._state = state

    def create(self, name: str, **values: Any) -> Project:
        """`values`: as in update(). Raises: InvalidInputError, ConflictError."""
        row = Project(id=new_ordered_id(ID_PREFIX), name=_checked_name(name), created_at=now(), archived_at=None)
        with self._state.session() as session:
            _refuse_taken(session, name, None)
            _set(row, values)
            session.add(row)
        return row

    def list(self, *, archived: bool = False) -> list[Project]:
        """The oldest first. `archived`: those too."""
        with self._state.reading() as session:
            query = select(Project).order_by(Project.created_at, Project.id)
            if not archived:
                query = query.where(Project.archived_at.is_(None))
            return list(session.scalars(query))

    def get(self, project: str) -> Project:
        """By id or name, archived ones too. Raises: NotFoundError."""
        with self._state.reading() as session:
            return _get(session, project)

    def active(self, project: str) -> Project:
        """The same, to work in. Raises: NotFoundError, ConflictError if it is archived."""
        row = self.get(project)
        if row.archived_at is not None:
            raise ConflictError(f"the project {row.name!r} is archived", hint="local-llm projects list --archived")
        return row

    def update(self, project: str, *, name: str | None = None, **values: Any) -> Project:
        """`values`: FLAGS (true or false) and QUOTAS (None: that of the settings).

        Raises: NotFoundError, InvalidInputError, ConflictError.
        """
        with self._state.session() as session:
            row = _get(session, project)
            if name is not None and name != row.name:
                _refuse_local(row, "renamed")
                _refuse_taken(session, _checked_name(name), row.id)
                row.name = name
            _set(row, values)
            return row

    def archive(self, caller: Caller, project: str) -> Project:
        """Its keys are refused from now on. Nothing is deleted.

        Raises: NotFoundError; ConflictError for the caller's own: nobody could say another word.
        """
        with self._state.session() as session:
            row = _get(session, project)
            _refuse_local(row, "archived")
            if row.id == caller.project_id:
                raise ConflictError(
                    f"the project {row.name!r} is that of the key that asks", hint="use a key of another project"
                )
            row.archived_at = row.archived_at or now()
            return row

    def removable(self, project: str) -> Project:
        """Raises: NotFoundError; ConflictError if it must stay."""
        row = self.get(project)
        if row.archived_at is None:
            raise ConflictError(
                f"the project {row.name!r} is not archived", hint=f"local-llm projects archive {row.name}"
            )
        with self._state.reading() as session:
            if set(session.scalars(select(Key.project_id).distinct())) == {row.id}:
                raise ConflictError(
                    f"the project {row.name!r} has the only keys that were ever made: without them the server "
                    "would answer anybody on this machine",
                    hint="local-llm keys create NAME --role owner",
                )
        return row

    def remove(self, settings: Settings, project: str) -> Removed:
        """Deletes an archived project with everything below it, its audit log too. Its jobs must be over and its
        collections deleted: the index holds those. Killed on the way, it goes on when called again.

        Raises: NotFoundError, ConflictError.
        """
        row = self.removable(project)
        caller = local_admin(row.id)
        with self._state.reading() as session:
            held = session.scalars(select(Collection.name).where(Collection.project_id == row.id)).all()
            if held:
                raise ConflictError(f"the project {row.name!r} still has the collection {held[0]!r}")
            file_ids = session.scalars(select(File.id).where(File.project_id == row.id)).all()
            adapters = session.scalars(select(Adapter).where(Adapter.project_id == row.id)).all()
            jobs = session.scalars(select(Job.id).where(Job.project_id == row.id)).all()
        files, registry = FileStore(settings, self._state), AdapterRegistry(settings, self._state)
        for file_id in file_ids:
            files.delete(file_id, caller)
        for adapter in adapters:
            registry.delete(adapter)
        runs = dict.fromkeys((RETRIEVER, EVALUATION, ANSWERS), 0)
        for run in of_project(settings.place, row.id):
            shutil.rmtree(run.path, ignore_errors=True)
            runs[run.kind] += 1
        keys = self._remove_rows(row.id, jobs)
        for job_id in jobs:
            shutil.rmtree(settings.place.jobs / job_id, ignore_errors=True)
        return Removed(keys, len(file_ids), len(adapters), len(jobs), runs[RETRIEVER], runs[EVALUATION])

    def _remove_rows(self, project_id: str, jobs: Sequence[str]) -> int:
        """Returns: how many keys."""
        with self._state.session() as session:
            for child in (JobEvent, JobCheckpoint):
                session.execute(delete(child).where(child.job_id.in_(jobs)))
            for table in TABLES:
                session.execute(delete(table).where(table.project_id == project_id))
            keys = session.scalars(delete(Key).where(Key.project_id == project_id).returning(Key.id)).all()
            session.execute(delete(Project).where(Project.id == project_id))
        return len(keys)


def values_of(row: Project) -> dict[str, Any]:
    """As they are set."""
    return {name: getattr(row, name) for name in VALUES}


def _set(row: Project, values: dict[str, Any]) -> None:
    """Raises: InvalidInputError."""
    for column, value in values.items():
        if column in FLAGS:
            right, expected = isinstance(value, bool), "true or false"
        else:
            right = column in QUOTAS and (value is None or (type(value) is int and 0 < value < 2**63))
            expected = "a number of bytes, or none"
        if not right:
            raise InvalidInputError(f"{column} = {value!r:.60}: expected {expected}", param=column)
        setattr(row, column, value)


def _get(session: Session, project: str) -> Project:
    query = select(Project).where(or_(Project.id == project, Project.name == project))
    row = session.scalars(query.order_by(Project.id != project)).first()  # a name that is another's id
    if row is None:
        raise NotFoundError(
            f"there is no project {project!r:.80}", hint="local-llm projects list", param="project_id"
        )
    return row


def _checked_name(name: str) -> str:
    if not 0 < len(name.strip()) <= LONGEST_NAME or not name.isprintable() or name.startswith(ID_PREFIX):
        raise InvalidInputError(
            f"name {name!r:.60}: expected 1 to {LONGEST_NAME} printable characters that do not begin with "
            f"{ID_PREFIX!r}",
            param="name",
        )
    return name


def _refuse_taken(session: Session, name: str, own: str | None) -> None:
    taken = session.scalars(select(Project.id).where(Project.name == name)).first()
    if taken is not None and taken != own:
        raise ConflictError(f"a project {name!r} is already there", hint="choose another name", param="name")


def _refuse_local(row: Project, what: str) -> None:
    if row.name == LOCAL_PROJECT:
        raise ConflictError(
            f"the project {LOCAL_PROJECT!r} cannot be {what}: commands work in it", param="project_id"
        )
