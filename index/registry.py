"""The collections of a box as rows of the state database: who has them, what they are called, when they expire."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.exc import SQLAlchemyError

from index.collection.database import create_database
from index.interface import ID_PREFIX, CollectionInfo, Ranking
from local_llm.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    LocalLLMError,
    NotFoundError,
    UnavailableError,
)
from local_llm.fileio import bytes_below
from local_llm.files import QuotaExceededError
from local_llm.identifiers import is_name, new_id, now
from local_llm.kept import KeptReads
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import Collection, ProfileRow, Project, State

DATABASE = "collection.db"
DAY_SECONDS = 24 * 3600
# That a collection is in use is noted so often at most: expiry counts days.
TOUCH_SECONDS = 60

Forget = Callable[[Path], None]
"""Removes what is held outside its folder of the collection with this database. Raises LocalLLMError."""


class ExpiredError(InvalidInputError):
    code = "vector_store_expired"


def require_all_here(state: State, folder: Path) -> None:
    """For what must hold in every collection when it is acknowledged. `folder`: of this host's collections.

    Raises: ConflictError if some are another's of the hosts that share the state.
    """
    if not state.host:
        return
    with state.reading() as session:
        identifiers = session.scalars(select(Collection.id)).all()
    if not all((folder / identifier / DATABASE).exists() for identifier in identifiers):
        raise ConflictError(
            "another of the hosts that share the state has collections: this is for that host to do",
            hint="ask that host; see docs/postgresql.md",
        )


class CollectionRegistry:
    def __init__(self, settings: Settings, state: State):
        self._folder = settings.place.collections
        self._quota_bytes = settings.index.project_quota_bytes
        self._state = state
        self._touched: dict[str, float] = {}
        self._kept: KeptReads[tuple[str, str], Collection] = KeptReads(state)  # by project

    def create(
        self,
        caller: Caller,
        name: str | None,
        *,
        encoder: str,
        fingerprint: str,
        dimension: int | None,
        **values: Any,
    ) -> Collection:
        """`values`: further columns of the row.

        Raises: ConflictError, InvalidInputError, ForbiddenError.
        """
        if caller.collections is not None:
            raise ForbiddenError("this key reaches certain collections only, and may not make others")
        # Who may read an upload hangs on all collections that it is in: one host has to have them all.
        self.require_all_here()
        identifier = new_id(ID_PREFIX)
        if name is not None and (not is_name(name) or name.startswith(ID_PREFIX)):
            raise InvalidInputError(
                f"{name!r} cannot name a collection; expected letters, digits, '.', '_' and '-', and not to begin "
                f"with {ID_PREFIX!r} as ids do",
                param="name",
            )
        name = identifier if name is None else name
        row = Collection(
            id=identifier,
            project_id=caller.project_id,
            name=name,
            encoder=encoder,
            encoder_fingerprint=fingerprint,
            created_at=now(),
            last_active_at=now(),
            ranking=asdict(Ranking()),
            **values,
        )
        create_database(self.database(identifier), encoder, fingerprint, dimension)
        if self._add(row):
            return row
        shutil.rmtree(self.database(identifier).parent)
        raise ConflictError(f"a collection {name!r} is already there", hint="choose another name", param="name")

    def _add(self, row: Collection) -> bool:
        """Whether the name was free."""
        with self._state.session() as session:
            same = (Collection.project_id == row.project_id, Collection.name == row.name)
            if session.scalars(select(Collection.id).where(*same)).first() is not None:
                return False
            session.add(row)
        return True

    def reachable(self, caller: Caller) -> list[Collection]:
        """Those of the caller's project that its key reaches."""
        return [row for row in self.of_project(caller) if caller.may_reach(row.id)]

    def of_project(self, caller: Caller) -> list[Collection]:
        """All of the caller's project, for what concerns its files wherever they are. Not for the caller's eyes."""
        with self._state.reading() as session:
            query = select(Collection).where(Collection.project_id == caller.project_id).order_by(Collection.name)
            return list(session.scalars(query))

    def all(self) -> list[Collection]:
        """Those of every project."""
        with self._state.reading() as session:
            return list(session.scalars(select(Collection)))

    def here(self) -> list[Collection]:
        """Those whose folders lie on this host. Where no others share the state all do, or are lost."""
        rows = self.all()
        return [row for row in rows if self.database(row.id).exists()] if self._state.host else rows

    def has_expired(self, identifier: str) -> bool:
        """By what its row says now."""
        with self._state.reading() as session:
            row = session.get(Collection, identifier)
        return row is not None and is_expired(row)

    def get(self, caller: Caller, collection: str) -> Collection:
        """By name or id. The row is not to be changed. Raises: NotFoundError."""
        project_id = caller.project_id
        row = self._kept.get((project_id, collection), lambda: self._row(project_id, collection))
        if not caller.may_reach(row.id):
            raise _unknown(collection)
        return row

    def _row(self, project_id: str, collection: str) -> Collection:
        with self._state.reading() as session:
            query = (
                select(Collection)
                .where(
                    Collection.project_id == project_id,
                    or_(Collection.id == collection, Collection.name == collection),
                )
                .order_by(Collection.id != collection)  # a name that is another's id
            )
            row = session.scalars(query).first()
        if row is None:
            raise _unknown(collection)
        return row

    def usable(self, caller: Caller, collection: str) -> Collection:
        """The same, noted as in use. Raises: NotFoundError, ExpiredError."""
        row = self.get(caller, collection)
        if is_expired(row):
            raise ExpiredError(
                f"the collection {row.name!r} expired after {row.expires_after_days} days without use",
                hint="index the documents anew, in a collection that lives longer",
                param="collection",
            )
        self._touch(row)
        return row

    def refuse_full(self, row: Collection) -> None:
        """Call it before anything is added. What is being added at that moment may go beyond: it is asked once.

        Raises: QuotaExceededError if the collections of the row's project take all that they may.
        """
        with self._state.reading() as session:
            own = session.get_one(Project, row.project_id).collection_quota_bytes
            ids = session.scalars(select(Collection.id).where(Collection.project_id == row.project_id)).all()
        quota_bytes = self._quota_bytes if own is None else own
        used = sum(bytes_below(self.database(identifier).parent) for identifier in ids)
        if used >= quota_bytes:
            raise QuotaExceededError(
                f"the project's collections take {used:,} bytes of the {quota_bytes:,} that they may take",
                hint="remove documents that are no longer needed, or raise index.project_quota_bytes",
                param="collection",
            )

    def update(self, identifier: str, values: Mapping[str, Any]) -> Collection:
        with self._state.session() as session:
            row = session.get_one(Collection, identifier)
            for column, value in values.items():
                setattr(row, column, value)
            return row

    def require_all_here(self) -> None:
        """Raises: ConflictError where others of the hosts that share the state have collections."""
        require_all_here(self._state, self._folder)

    def delete(self, caller: Caller, collection: str) -> Collection:
        """Forgets the row; the caller closes what is open and deletes the folder.

        Raises: NotFoundError, ForbiddenError, ConflictError.
        """
        if not caller.administers:
            raise ForbiddenError("only an admin may delete a collection")
        row = self.get(caller, collection)
        self.require_all_here()
        with self._state.session() as session:
            users = session.scalars(select(ProfileRow.name).where(ProfileRow.collection_id == row.id)).all()
            if users:
                raise ConflictError(
                    f"the collection {row.name!r} is used by the profile {', '.join(users)}",
                    hint=f"local-llm profiles remove {users[0]}",
                )
            session.delete(row)
        return row

    def database(self, identifier: str) -> Path:
        return self._folder / identifier / DATABASE

    def remove_abandoned(self, forget: Forget) -> None:
        """Deletes folders that killed processes left without a row. Call it under the index's lock."""
        known = {row.id for row in self.all()}
        for folder in self._folder.glob(f"*{ID_PREFIX}*"):  # also what was renamed to be deleted
            if folder.name not in known:
                self.remove_folder(folder, forget)

    def remove_folder(self, folder: Path, forget: Forget) -> None:
        """Deletes what is left of a collection. While what is held of it elsewhere is out of reach its empty folder
        stays, so that the next start finds it and tries again."""
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        try:
            forget(self.database(folder.name[folder.name.index(ID_PREFIX) :]))
        except LocalLLMError as error:
            print(f"{folder.name} is deleted here, and not yet elsewhere: {error.message}", file=sys.stderr)  # noqa: T201
        else:
            folder.rmdir()

    def _touch(self, row: Collection) -> None:
        if time.monotonic() - self._touched.get(row.id, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._touched[row.id] = time.monotonic()
            try:
                self.update(row.id, {"last_active_at": now()})
            except (SQLAlchemyError, UnavailableError) as error:  # who only reads is answered all the same
                print(f"that {row.name} is in use could not be noted: {error}", file=sys.stderr)  # noqa: T201


def _unknown(collection: str) -> NotFoundError:
    return NotFoundError(
        f"there is no collection {collection!r}",
        hint=f"local-llm index create {collection}, or: local-llm index list",
        param="collection",
    )


def is_expired(row: Collection) -> bool:
    return row.expires_after_days is not None and now() > row.last_active_at + row.expires_after_days * DAY_SECONDS


def info_of(row: Collection) -> CollectionInfo:
    return CollectionInfo(
        id=row.id,
        name=row.name,
        title=row.title,
        encoder=row.encoder,
        created_at=row.created_at,
        metadata=dict(row.labels),
        expires_after_days=row.expires_after_days,
        last_active_at=row.last_active_at,
        ranking=Ranking(**row.ranking),
    )
