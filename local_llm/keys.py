"""API keys: kept as hashes, shown once. Each belongs to a project and has a role, principals, scopes and limits."""

import builtins
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from local_llm.errors import AuthenticationError, InvalidInputError, NotFoundError
from local_llm.identifiers import new_id, new_ordered_id, now
from local_llm.key_rules import (
    collection_ids,
    refuse_archived,
    refuse_to_lose_owners,
    refuse_wrong,
    scope_of,
)
from local_llm.permissions import Caller, Keeps, Limits, Role, local_admin
from local_llm.state import Key, Project, State

PREFIX = "sk-local-"
ACCOUNT_PREFIX = "svc_acct_"
SECRET_BYTES = 32
# How long the old secret goes on opening after a rotation, unless told otherwise: time to carry the new one around.
OVERLAP_SECONDS = 24 * 3600
LONGEST_OVERLAP_SECONDS = 90 * 24 * 3600


@dataclass(frozen=True)
class NewKey:
    """`secret` is told here and never again."""

    key: Key
    secret: str


@dataclass(frozen=True)
class Scopes:
    """What a key may name. `collections`: ids or names of the project's. None: all."""

    models: Sequence[str] | None = None
    collections: Sequence[str] | None = None


EVERYTHING, NO_LIMITS = Scopes(), Limits()


@dataclass(frozen=True)
class Admission:
    """Whom a secret stands for, and until when (Unix time) if it ends by itself."""

    caller: Caller
    until: int | None


class KeyStore:
    def __init__(self, state: State):
        self._state = state

    def create(
        self,
        project_id: str,
        name: str,
        *,
        role: Role = "member",
        principals: Sequence[str] = (),
        secret: str | None = None,
        scopes: Scopes = EVERYTHING,
        limits: Limits = NO_LIMITS,
        expires_at: int | None = None,
        account_id: str | None = None,
    ) -> NewKey:
        """`account_id`: of a service account that has keys already; else the key gets one of its own.

        Raises: InvalidInputError; NotFoundError for the project or a collection; ConflictError if it is archived.
        """
        secret = _new_secret() if secret is None else secret
        refuse_wrong(name, role, secret, limits, expires_at)
        key = Key(
            id=new_ordered_id("key_"),
            project_id=project_id,
            account_id=account_id or new_id(ACCOUNT_PREFIX),
            name=name,
            role=role,
            principals=sorted(set(principals)),
            secret_sha256=hash_of(secret.encode()),
            redacted=_redacted(secret),
            created_at=now(),
            expires_at=expires_at,
            models=scope_of(scopes.models, "models"),
            **asdict(limits),
        )
        with self._state.session() as session:
            refuse_archived(session, project_id)
            key.collections = collection_ids(session, project_id, scopes.collections)
            session.add(key)
        return NewKey(key, secret)

    def create_first(self, project_id: str, file: Path) -> NewKey | None:
        """Makes the key in `file` the first one, an owner's, if no key was ever created."""
        if self.any_created():
            return None
        try:
            secret = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"the first key cannot be read from {file}: {error}") from None
        return self.create(project_id, "first key", role="owner", secret=secret)

    def list(self, project_id: str) -> list[Key]:
        """All keys of a project, revoked ones included, the oldest first."""
        with self._state.reading() as session:
            query = select(Key).where(Key.project_id == project_id).order_by(Key.created_at, Key.id)
            return list(session.scalars(query))

    def owners(self) -> builtins.list[Key]:
        """The owners' keys of all projects that are not revoked, the oldest first."""
        with self._state.reading() as session:
            query = select(Key).where(Key.role == "owner", Key.revoked_at.is_(None))
            return list(session.scalars(query.order_by(Key.created_at, Key.id)))

    def get(self, project_id: str, key_id: str) -> Key:
        """Raises: NotFoundError, also for a revoked one."""
        with self._state.reading() as session:
            return _get(session, project_id, key_id)

    def update(
        self,
        project_id: str,
        key_id: str,
        *,
        name: str | None = None,
        role: Role | None = None,
        limits: Limits | None = None,
    ) -> Key:
        """Changes what is given. Raises: NotFoundError, InvalidInputError; ConflictError for the last owner's."""
        with self._state.session() as session:
            key = _get(session, project_id, key_id)
            _change(session, [key], name, role)
            refuse_wrong(key.name, key.role, None, limits or NO_LIMITS, None)
            for column, value in (asdict(limits) if limits else {}).items():
                setattr(key, column, value)
            return key

    def update_account(
        self, project_id: str, account_id: str, *, name: str | None = None, role: Role | None = None
    ) -> builtins.list[Key]:
        """All keys of a service account, the oldest first. Raises: as update()."""
        query = select(Key).where(Key.project_id == project_id, Key.account_id == account_id)
        with self._state.session() as session:
            oldest_first = query.where(Key.revoked_at.is_(None)).order_by(Key.created_at, Key.id)
            keys = list(session.scalars(oldest_first))
            if not keys:
                raise NotFoundError(f"there is no service account {account_id!r:.80}", param="service_account_id")
            _change(session, keys, name, role)
            refuse_wrong(keys[0].name, keys[0].role, None, NO_LIMITS, None)
            return keys

    def rotate(self, project_id: str, key_id: str, *, overlap_seconds: int = OVERLAP_SECONDS) -> NewKey:
        """A new secret for the same key. The old one opens for so long, then never again; one of an earlier
        rotation that was still open is closed at once.

        Raises: NotFoundError, InvalidInputError.
        """
        if not 0 <= overlap_seconds <= LONGEST_OVERLAP_SECONDS:
            raise InvalidInputError(
                f"overlap_seconds = {overlap_seconds}: expected 0 to {LONGEST_OVERLAP_SECONDS}",
                param="overlap_seconds",
            )
        secret = _new_secret()
        with self._state.session() as session:
            key = _get(session, project_id, key_id)
            key.previous_sha256 = key.secret_sha256 if overlap_seconds else None
            key.previous_expires_at = now() + overlap_seconds if overlap_seconds else None
            key.secret_sha256, key.redacted = hash_of(secret.encode()), _redacted(secret)
        return NewKey(key, secret)

    def revoke(self, project_id: str, *key_ids: str, keep_an_owner: bool = False) -> None:
        """At once and for good, with the secret of before a rotation; all of them or none. `keep_an_owner` is for
        those who could make no new one: it is not asked of who is on the box.

        Raises: NotFoundError; ConflictError for the last owner's.
        """
        with self._state.session() as session:
            keys = [session.get(Key, key_id) for key_id in key_ids]
            for key_id, key in zip(key_ids, keys, strict=True):
                if key is None or key.project_id != project_id:
                    raise _not_found(key_id)
                key.revoked_at = key.revoked_at or now()
            if keep_an_owner and any(key is not None and key.role == "owner" for key in keys):
                refuse_to_lose_owners(session)

    def any_created(self) -> bool:
        """Whether a key was ever created, revoked ones included: such a box never opens again without one."""
        with self._state.reading() as session:
            return session.scalars(select(Key.id).limit(1)).first() is not None

    def authenticate(self, secret: str) -> Caller:
        """The holder of a key.

        Raises: AuthenticationError if it is unknown, revoked, expired or of an archived project: all told alike.
        """
        found = self.admission(hash_of(secret.encode(errors="surrogateescape")))
        if found is None or (found.until is not None and found.until <= now()):
            raise incorrect_key()
        return found.caller

    def admission(self, secret_sha256: str) -> Admission | None:
        """Whom a secret of this hash stands for by what the database says now; the clock is the caller's to ask."""
        with self._state.reading() as session:
            query = select(Key, Project).join(Project, Project.id == Key.project_id)
            either = or_(Key.secret_sha256 == secret_sha256, Key.previous_sha256 == secret_sha256)
            found = session.execute(query.where(either)).first()
        if found is None or found.Key.revoked_at is not None or found.Project.archived_at is not None:
            return None
        key = found.Key
        ends = [key.expires_at, None if key.secret_sha256 == secret_sha256 else key.previous_expires_at]
        return Admission(_caller(key, found.Project), min((end for end in ends if end is not None), default=None))

    def local_owner(self, project_id: str) -> Caller:
        """Whoever is on the box itself, with what the project keeps."""
        with self._state.reading() as session:
            project = session.get_one(Project, project_id)
        return replace(local_admin(project_id), keeps=keeps_of(project))

    def note_used(self, times: Mapping[str, int]) -> None:
        """When keys were last used, by their ids."""
        with self._state.session() as session:
            for key_id, time in times.items():
                key = session.get(Key, key_id)
                if key is not None:
                    key.last_used_at = max(time, key.last_used_at or 0)

    def holder(self, key_id: str) -> Caller:
        """The holder of a key by its id, for work that goes on after its request was answered.

        Raises: AuthenticationError if it is unknown, revoked or expired by now, or its project is archived.
        """
        with self._state.reading() as session:
            query = select(Key, Project).join(Project, Project.id == Key.project_id).where(Key.id == key_id)
            found = session.execute(query).first()
        if found is None or found.Key.revoked_at is not None or found.Project.archived_at is not None:
            raise AuthenticationError(f"the key {key_id} was revoked", hint="local-llm keys list")
        if found.Key.expires_at is not None and found.Key.expires_at <= now():
            raise AuthenticationError(f"the key {key_id} has expired", hint="local-llm keys list")
        return _caller(found.Key, found.Project)


def hash_of(secret: bytes) -> str:
    # Keys hold 256 random bits: a plain hash cannot be searched, a slow one would cost every request.
    return hashlib.sha256(secret).hexdigest()


def incorrect_key() -> AuthenticationError:
    return AuthenticationError(
        "Incorrect API key provided.", hint="an administrator makes keys with: local-llm keys create NAME"
    )


def keeps_of(project: Project) -> Keeps:
    return Keeps(project.log_content, project.store_chats, project.store_responses)


def limits_of(key: Key) -> Limits:
    return Limits(key.requests_per_minute, key.tokens_per_minute, key.tokens_per_day)


def _caller(key: Key, project: Project) -> Caller:
    return Caller(
        project_id=key.project_id,
        role=key.role,  # type: ignore[arg-type]  # only create() and update() write it
        principals=tuple(key.principals),
        key_id=key.id,
        models=None if key.models is None else tuple(key.models),
        collections=None if key.collections is None else tuple(key.collections),
        limits=limits_of(key),
        keeps=keeps_of(project),
    )


def _new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def _redacted(secret: str) -> str:
    return f"{PREFIX if secret.startswith(PREFIX) else ''}…{secret[-4:]}"


def _get(session: Session, project_id: str, key_id: str) -> Key:
    key = session.get(Key, key_id)
    if key is None or key.project_id != project_id or key.revoked_at is not None:
        raise _not_found(key_id)
    return key


def _change(session: Session, keys: Sequence[Key], name: str | None, role: Role | None) -> None:
    """Raises: ConflictError."""
    demoted = role not in (None, "owner") and any(key.role == "owner" for key in keys)
    for key in keys:
        key.name, key.role = name or key.name, role or key.role
    if demoted:
        refuse_to_lose_owners(session)


def _not_found(key_id: str) -> NotFoundError:
    return NotFoundError(f"there is no key {key_id!r:.80}", hint="local-llm keys list", param="key_id")
