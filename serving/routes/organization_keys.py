"""/v1/organization/admin_api_keys, and api_keys and service_accounts of projects. Owners only.

As in the API, a project's key is made with a service account, or for one. What a key may do, name and use is ours,
beside the API's fields; so are changing it and rotating its secret.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool

from local_llm.errors import NotFoundError
from local_llm.keys import OVERLAP_SECONDS, NewKey
from local_llm.permissions import Caller
from local_llm.state import Key
from serving.bodies import read_json_object
from serving.organization import answers, requests
from serving.organization.answers import Json, account_as_json, key_as_json, page_of
from serving.organization.requests import ROLES, owner_of
from serving.services import Services, services_of
from serving.vector_stores.requests import read

router = APIRouter()

Limit = Annotated[int, Query(ge=1, le=100)]
PROJECT = "/v1/organization/projects/{project_id}"
ADMIN_KEYS = "/v1/organization/admin_api_keys"


def _project_id(request: Request, project_id: str) -> str:
    """Paths may name a project as commands do. Raises: NotFoundError; ForbiddenError to all but owners."""
    owner_of(request)
    return services_of(request).projects.get(project_id).id


ProjectId = Annotated[str, Depends(_project_id)]


# Keys of a project


@router.get(PROJECT + "/api_keys")
def list_keys(request: Request, project_id: ProjectId, after: str | None = None, limit: Limit = 20) -> Json:
    return page_of(_keys(services_of(request), project_id), key_as_json, after=after, limit=limit)


@router.get(PROJECT + "/api_keys/{key_id}")
def retrieve_key(request: Request, project_id: ProjectId, key_id: str) -> Json:
    return key_as_json(services_of(request).keys.get(project_id, key_id))


@router.post(PROJECT + "/api_keys/{key_id}")
async def update_key(request: Request, project_id: ProjectId, key_id: str) -> Json:
    services, caller = services_of(request), owner_of(request)
    asked = read(requests.UpdateKey, await _body(request))

    def change() -> Key:
        limits = asked.changed_limits(services.keys.get(project_id, key_id))
        role = None if asked.role is None else ROLES[asked.role]
        return services.keys.update(project_id, key_id, name=asked.name, role=role, limits=limits)

    key = await run_in_threadpool(change)
    _note(services, caller, "api_key.updated", key, changes_requested=asked.model_dump(exclude_unset=True))
    return key_as_json(key)


@router.post(PROJECT + "/api_keys/{key_id}/rotate")
async def rotate_key(request: Request, project_id: ProjectId, key_id: str) -> Json:
    services, caller = services_of(request), owner_of(request)
    asked = read(requests.RotateKey, await _body(request))
    overlap = OVERLAP_SECONDS if asked.overlap_seconds is None else asked.overlap_seconds
    new = await run_in_threadpool(services.keys.rotate, project_id, key_id, overlap_seconds=overlap)
    _note(services, caller, "api_key.rotated", new.key, overlap_seconds=overlap)
    return answers.new_key_as_json(new)


@router.delete(PROJECT + "/api_keys/{key_id}")
def delete_key(request: Request, project_id: ProjectId, key_id: str) -> Json:
    """Refused from the next request on."""
    services, caller = services_of(request), owner_of(request)
    _revoke(services, caller, services.keys.get(project_id, key_id))
    return answers.deleted(key_id, answers.KEY)


# Service accounts: whose keys they are


@router.post(PROJECT + "/service_accounts")
async def create_account(request: Request, project_id: ProjectId) -> Json:
    """The account and its first key, whose secret is in this answer and in no other."""
    services, caller = services_of(request), owner_of(request)
    asked = read(requests.CreateAccount, await _body(request))
    new = await run_in_threadpool(services.keys.create, project_id, asked.name, **asked.settings())
    _note_account(services, caller, "service_account.created", new.key)
    _note(services, caller, "api_key.created", new.key)
    return {**account_as_json([new.key]), "api_key": answers.new_key_as_json(new)}


@router.get(PROJECT + "/service_accounts")
def list_accounts(request: Request, project_id: ProjectId, after: str | None = None, limit: Limit = 20) -> Json:
    accounts = list(answers.by_account(_keys(services_of(request), project_id)).values())
    return page_of(accounts, account_as_json, after=after, limit=limit)


@router.get(PROJECT + "/service_accounts/{account_id}")
def retrieve_account(request: Request, project_id: ProjectId, account_id: str) -> Json:
    return account_as_json(_account(services_of(request), project_id, account_id))


@router.post(PROJECT + "/service_accounts/{account_id}")
async def update_account(request: Request, project_id: ProjectId, account_id: str) -> Json:
    """Name and role of all of its keys."""
    services, caller = services_of(request), owner_of(request)
    asked = read(requests.UpdateAccount, await _body(request))
    role = None if asked.role is None else ROLES[asked.role]
    keys = await run_in_threadpool(services.keys.update_account, project_id, account_id, name=asked.name, role=role)
    _note_account(services, caller, "service_account.updated", keys[0])
    return account_as_json(keys)


@router.delete(PROJECT + "/service_accounts/{account_id}")
def delete_account(request: Request, project_id: ProjectId, account_id: str) -> Json:
    """With all of its keys."""
    services, caller = services_of(request), owner_of(request)
    keys = _account(services, project_id, account_id)
    _revoke(services, caller, *keys)
    _note_account(services, caller, "service_account.deleted", keys[0])
    return answers.deleted(account_id, answers.ACCOUNT)


@router.post(PROJECT + "/service_accounts/{account_id}/api_keys")
async def create_key(request: Request, project_id: ProjectId, account_id: str) -> Json:
    """Another key of an account, which may what the first may unless told otherwise. One that only needs a new
    secret is rotated instead."""
    services, caller = services_of(request), owner_of(request)
    asked = read(requests.CreateKey, await _body(request))

    def create() -> NewKey:
        first = _account(services, project_id, account_id)[0]
        return services.keys.create(project_id, asked.name or first.name, **asked.settings_like(first))

    new = await run_in_threadpool(create)
    _note(services, caller, "api_key.created", new.key)
    return answers.new_key_as_json(new)


# Admin keys: those of owners


@router.post(ADMIN_KEYS)
async def create_admin_key(request: Request) -> Json:
    """In the caller's project, whose files and models it works with; it manages all projects."""
    services, caller = services_of(request), owner_of(request)
    asked = read(requests.CreateAdminKey, await _body(request))
    expires_at = requests.expiry(asked.expires_at, asked.expires_in_seconds)
    new = await run_in_threadpool(
        services.keys.create, caller.project_id, asked.name, role="owner", expires_at=expires_at
    )
    _note(services, caller, "api_key.created", new.key, role="owner")
    return {**answers.admin_key_as_json(new.key), "value": new.secret}


@router.get(ADMIN_KEYS)
def list_admin_keys(
    request: Request, after: str | None = None, limit: Limit = 20, order: Literal["asc", "desc"] = "desc"
) -> Json:
    owner_of(request)
    keys = services_of(request).keys.owners()
    return page_of(keys, answers.admin_key_as_json, after=after, limit=limit, order=order)


@router.get(ADMIN_KEYS + "/{key_id}")
def retrieve_admin_key(request: Request, key_id: str) -> Json:
    owner_of(request)
    return answers.admin_key_as_json(_admin_key(services_of(request), key_id))


@router.delete(ADMIN_KEYS + "/{key_id}")
def delete_admin_key(request: Request, key_id: str) -> Json:
    services, caller = services_of(request), owner_of(request)
    _revoke(services, caller, _admin_key(services, key_id))
    return answers.deleted(key_id, answers.ADMIN_KEY)


def _keys(services: Services, project_id: str) -> list[Key]:
    """Those that are not revoked."""
    return [key for key in services.keys.list(project_id) if key.revoked_at is None]


def _account(services: Services, project_id: str, account_id: str) -> list[Key]:
    """Its keys. Raises: NotFoundError."""
    keys = answers.by_account(_keys(services, project_id)).get(account_id)
    if not keys:
        raise NotFoundError(f"there is no service account {account_id!r:.80}", param="service_account_id")
    return keys


def _admin_key(services: Services, key_id: str) -> Key:
    for key in services.keys.owners():
        if key.id == key_id:
            return key
    raise NotFoundError(f"there is no admin key {key_id!r:.80}", param="key_id")


def _revoke(services: Services, caller: Caller, *keys: Key) -> None:
    """All of one project. Raises: ConflictError if nobody could manage keys then."""
    services.keys.revoke(keys[0].project_id, *(key.id for key in keys), keep_an_owner=True)
    for key in keys:
        _note(services, caller, "api_key.deleted", key)


def _note(services: Services, caller: Caller, action: str, key: Key, **detail: Any) -> None:
    services.audit.note(caller, action, key.id, {"name": key.name, **detail}, project_id=key.project_id)


def _note_account(services: Services, caller: Caller, action: str, key: Key) -> None:
    detail = {"name": key.name, "role": key.role}
    services.audit.note(caller, action, key.account_id, detail, project_id=key.project_id)


async def _body(request: Request) -> Json:
    return await read_json_object(request, services_of(request).settings.server.max_body_bytes)
