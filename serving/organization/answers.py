"""Projects, keys and audit logs as the organization API shows them, with our fields beside."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from local_llm.errors import NotFoundError
from local_llm.keys import NewKey, limits_of
from local_llm.projects import values_of
from local_llm.state import AuditEntry, Key, Project

Json = dict[str, Any]
T = TypeVar("T")

KEY = "organization.project.api_key"
ACCOUNT = "organization.project.service_account"
ADMIN_KEY = "organization.admin_api_key"


def page_of(
    rows: Sequence[T], show: Callable[[T], Json], *, after: str | None, limit: int, order: str = "asc"
) -> Json:
    """A page of `rows`, which come the oldest first. Raises: NotFoundError if `after` is none of them."""
    shown = [show(row) for row in (rows if order == "asc" else rows[::-1])]
    start = 0
    if after is not None:
        start = next((at + 1 for at, one in enumerate(shown) if one["id"] == after), -1)
        if start < 0:
            raise NotFoundError(f"there is no {after!r:.80} in this list", param="after")
    return listed(shown[start : start + limit], len(shown) > start + limit)


def listed(data: list[Json], has_more: bool) -> Json:
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def project_as_json(row: Project) -> Json:
    return {
        "id": row.id,
        "object": "organization.project",
        "name": row.name,
        "created_at": row.created_at,
        "archived_at": row.archived_at,
        "status": "active" if row.archived_at is None else "archived",
        "external_key_id": None,
        **values_of(row),
    }


def key_as_json(key: Key) -> Json:
    return {
        "id": key.id,
        "object": KEY,
        "name": key.name,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "redacted_value": key.redacted,
        "owner": {"type": "service_account", "service_account": account_as_json([key])},
        "owner_project_access": "active",
        "role": key.role,
        "principals": key.principals,
        "models": key.models,
        "collections": key.collections,
        **vars(limits_of(key)),
        "expires_at": key.expires_at,
        "previous_value_expires_at": key.previous_expires_at,
    }


def account_as_json(keys: Sequence[Key]) -> Json:
    """`keys`: all of one account, the oldest first."""
    first = keys[0]
    return {
        "id": first.account_id,
        "object": ACCOUNT,
        "name": first.name,
        "created_at": first.created_at,
        "role": "member" if first.role == "member" else "owner",
    }


def by_account(keys: Sequence[Key]) -> dict[str, list[Key]]:
    accounts: dict[str, list[Key]] = {}
    for key in keys:
        accounts.setdefault(key.account_id, []).append(key)
    return accounts


def new_key_as_json(new: NewKey) -> Json:
    """With its secret: the only answer that ever has it."""
    return {**key_as_json(new.key), "object": f"{ACCOUNT}.api_key", "value": new.secret}


def admin_key_as_json(key: Key) -> Json:
    return {
        "id": key.id,
        "object": ADMIN_KEY,
        "name": key.name,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "redacted_value": key.redacted,
        "project_id": key.project_id,
        "owner": {
            "type": "service_account",
            "object": "organization.user",
            "id": key.account_id,
            "name": key.name,
            "created_at": key.created_at,
            "role": "owner",
        },
    }


def deleted(identifier: str, kind: str) -> Json:
    return {"id": identifier, "object": f"{kind}.deleted", "deleted": True}


def audit_as_json(entry: AuditEntry, names: Mapping[str, str]) -> Json:
    """`names` of projects, by their ids. What happened is told below the entry's own type, as the API does."""
    actor: Json = {"type": "session", "session": {"user": {"id": "local"}}}
    if entry.key_id is not None:
        actor = {"type": "api_key", "api_key": {"id": entry.key_id, "type": "service_account"}}
    return {
        "id": entry.id,
        "object": "organization.audit_log",
        "type": entry.action,
        "effective_at": entry.created_at,
        "project": {"id": entry.project_id, "name": names.get(entry.project_id)},
        "actor": actor,
        entry.action: {"id": entry.object_id, "data": entry.detail},
    }
