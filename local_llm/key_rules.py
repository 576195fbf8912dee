"""What a key can be, asked before it is written."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import get_args

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from local_llm.errors import ConflictError, InvalidInputError, NotFoundError
from local_llm.identifiers import now
from local_llm.permissions import Limits, Role
from local_llm.state import Collection, Key, Project

MINIMUM_SECRET_LENGTH = 20
LONGEST_NAME = 512


def refuse_wrong(name: str, role: str, secret: str | None, limits: Limits, expires_at: int | None) -> None:
    """Raises: InvalidInputError."""
    if not 0 < len(name) <= LONGEST_NAME:
        raise InvalidInputError(f"name has {len(name)} characters; expected 1 to {LONGEST_NAME}", param="name")
    if role not in get_args(Role):
        raise InvalidInputError(f"role {role!r:.60}: expected {', '.join(get_args(Role))}", param="role")
    if secret is not None and len(secret) < MINIMUM_SECRET_LENGTH:
        raise InvalidInputError(
            f"the key is {len(secret)} characters long; expected {MINIMUM_SECRET_LENGTH} or more",
            hint="python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    for limit, value in asdict(limits).items():
        if value is not None and not 0 < value < 2**63:
            raise InvalidInputError(f"{limit} = {value}: expected 1 or more, or none for no limit", param=limit)
    if expires_at is not None and not now() < expires_at < 2**63:
        raise InvalidInputError(f"expires_at = {expires_at}: expected a time to come (Unix)", param="expires_at")


def scope_of(names: Sequence[str] | None, param: str) -> list[str] | None:
    if names is None:
        return None
    if not names or not all(names):
        raise InvalidInputError(f"{param}: expected one name or more, or none given for all", param=param)
    return sorted(set(names))


def collection_ids(session: Session, project_id: str, wanted: Sequence[str] | None) -> list[str] | None:
    """Raises: NotFoundError naming the first that the project has not."""
    names = scope_of(wanted, "collections")
    if names is None:
        return None
    rows = session.execute(select(Collection.id, Collection.name).where(Collection.project_id == project_id)).all()
    ids = {row.name: row.id for row in rows} | {row.id: row.id for row in rows}
    for name in names:
        if name not in ids:
            raise NotFoundError(
                f"there is no collection {name!r:.80} in the project",
                hint="local-llm index list",
                param="collections",
            )
    return sorted({ids[name] for name in names})


def refuse_archived(session: Session, project_id: str) -> None:
    project = session.get(Project, project_id)
    if project is None:
        raise NotFoundError(f"there is no project {project_id!r:.80}", param="project_id")
    if project.archived_at is not None:
        raise ConflictError(f"the project {project.name!r} is archived: it gets no more keys", param="project_id")


def refuse_to_lose_owners(session: Session) -> None:
    """Called in the transaction that ended an owner's key, or gave it another role. Raises: ConflictError."""
    session.flush()
    usable = (
        select(Key.id)
        .join(Project, Project.id == Key.project_id)
        .where(
            Key.role == "owner",
            Key.revoked_at.is_(None),
            or_(Key.expires_at.is_(None), Key.expires_at > now()),
            Project.archived_at.is_(None),
        )
    )
    if session.scalars(usable.limit(1)).first() is None:
        raise ConflictError(
            "this is the last owner's key that can be used: without it nobody could manage projects and keys",
            hint="make another first, by POST /v1/organization/admin_api_keys or: "
            "local-llm keys create NAME --role owner",
            param="key_id",
        )
