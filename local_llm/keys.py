"""API keys: kept as hashes, shown once. Each belongs to a project and has a role and principals."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from local_llm.errors import AuthenticationError, InvalidInputError, NotFoundError
from local_llm.identifiers import new_id, now
from local_llm.permissions import Caller, Role
from local_llm.state import Key, State

PREFIX = "sk-local-"
SECRET_BYTES = 32
MINIMUM_SECRET_LENGTH = 20


@dataclass(frozen=True)
class NewKey:
    """`secret` is told here and never again."""

    key: Key
    secret: str


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
    ) -> NewKey:
        if secret is None:
            secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        if len(secret) < MINIMUM_SECRET_LENGTH:
            raise InvalidInputError(
                f"the key is {len(secret)} characters long; expected {MINIMUM_SECRET_LENGTH} or more",
                hint="python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        key = Key(
            id=new_id("key_"),
            project_id=project_id,
            name=name,
            role=role,
            principals=sorted(set(principals)),
            secret_sha256=_hash(secret),
            redacted=f"{PREFIX if secret.startswith(PREFIX) else ''}…{secret[-4:]}",
            created_at=now(),
            expires_at=None,
            revoked_at=None,
        )
        with self._state.session() as session:
            session.add(key)
        return NewKey(key, secret)

    def create_first(self, project_id: str, file: Path) -> NewKey | None:
        """Makes the key in `file` the first admin key, if no key was ever created."""
        if self.any_created():
            return None
        try:
            secret = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"the first key cannot be read from {file}: {error}") from None
        return self.create(project_id, "first key", role="admin", secret=secret)

    def list(self, project_id: str) -> list[Key]:
        with self._state.reading() as session:
            return list(session.scalars(select(Key).where(Key.project_id == project_id).order_by(Key.created_at)))

    def revoke(self, project_id: str, key_id: str) -> None:
        with self._state.session() as session:
            key = session.get(Key, key_id)
            if key is None or key.project_id != project_id:
                raise NotFoundError(f"there is no key {key_id!r}", hint="local-llm keys list")
            key.revoked_at = key.revoked_at or now()

    def any_created(self) -> bool:
        """Whether a key was ever created, revoked ones included: such a box never opens again without one."""
        with self._state.reading() as session:
            return session.scalar(select(func.count()).select_from(Key)) != 0

    def authenticate(self, secret: str) -> Caller:
        """The holder of a key.

        Raises: AuthenticationError if it is unknown, revoked or expired: all told alike.
        """
        with self._state.reading() as session:
            key = session.scalars(select(Key).where(Key.secret_sha256 == _hash(secret))).first()
        if key is None or key.revoked_at is not None or (key.expires_at or now() + 1) <= now():
            raise AuthenticationError(
                "Incorrect API key provided.", hint="an administrator makes keys with: local-llm keys create NAME"
            )
        return Caller(key.project_id, key.role, tuple(key.principals), key.id)  # type: ignore[arg-type]

    def holder(self, key_id: str) -> Caller:
        """The holder of a key by its id, for work that goes on after its request was answered.

        Raises: AuthenticationError if it is unknown, revoked or expired by now.
        """
        with self._state.reading() as session:
            key = session.get(Key, key_id)
        if key is None or key.revoked_at is not None or (key.expires_at or now() + 1) <= now():
            raise AuthenticationError(f"the key {key_id} was revoked or has expired", hint="local-llm keys list")
        return Caller(key.project_id, key.role, tuple(key.principals), key.id)  # type: ignore[arg-type]


def _hash(secret: str) -> str:
    # Keys hold 256 random bits: a plain hash cannot be searched, a slow one would cost every request.
    return hashlib.sha256(secret.encode()).hexdigest()
