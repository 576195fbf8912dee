"""Bodies and queries of /v1/organization, field by field. What the API does not know is refused."""

import time
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import Field

from local_llm.audit import AuditQuery
from local_llm.errors import ForbiddenError, InvalidInputError
from local_llm.keys import Scopes
from local_llm.permissions import Caller, Limits, Role
from local_llm.projects import VALUES
from local_llm.state import Key
from serving.services import caller_of
from serving.vector_stores.requests import Body

# An `owner` of a project, to the API, is who we call its admin. Owners of the organization hold admin API keys.
ProjectRole = Literal["owner", "admin", "member"]
ROLES: dict[ProjectRole, Role] = {"owner": "admin", "admin": "admin", "member": "member"}

MOST_NAMES = 100
Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(max_length=MOST_NAMES)]
Count = Annotated[int, Field(ge=1, lt=2**63)]
Time = Annotated[int, Field(ge=0, lt=2**63)]

LIMITS = ("requests_per_minute", "tokens_per_minute", "tokens_per_day")


def owner_of(request: Request) -> Caller:
    """Raises: AuthenticationError, ForbiddenError."""
    caller = caller_of(request)
    if not caller.owns:
        raise ForbiddenError(
            "You have insufficient permissions for this operation: it takes an owner's key.",
            hint="local-llm keys create NAME --role owner",
        )
    return caller


class ProjectBody(Body):
    """`external_key_id` and `geography` have no meaning here."""

    external_key_id: None = None
    geography: None = None
    log_content: bool = False
    store_chats: bool = False
    store_responses: bool = True
    file_quota_bytes: Count | None = None
    collection_quota_bytes: Count | None = None

    def values(self) -> dict[str, Any]:
        """What was given of what is ours."""
        return {name: getattr(self, name) for name in VALUES if name in self.model_fields_set}


class CreateProject(ProjectBody):
    name: str


class UpdateProject(ProjectBody):
    name: str | None = None


class KeyLimits(Body):
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    tokens_per_day: Count | None = None

    def limits(self) -> Limits:
        return Limits(self.requests_per_minute, self.tokens_per_minute, self.tokens_per_day)


class NewKeyBody(KeyLimits):
    """All of it ours, beside the API's fields."""

    role: ProjectRole = "member"
    principals: Names = Field(default_factory=list)
    models: Names | None = None
    collections: Names | None = None
    expires_at: Time | None = None
    expires_in_seconds: Count | None = None

    def settings(self) -> dict[str, Any]:
        """As KeyStore.create() takes them."""
        return {
            "role": ROLES[self.role],
            "principals": self.principals,
            "scopes": Scopes(self.models, self.collections),
            "limits": self.limits(),
            "expires_at": expiry(self.expires_at, self.expires_in_seconds),
        }


class CreateAccount(NewKeyBody):
    name: str
    create_service_account_only: Literal[False] | None = None


class CreateKey(NewKeyBody):
    """`scopes` are permissions of the hosted API, which are none here."""

    name: str | None = None
    scopes: None = None

    def settings_like(self, first: Key) -> dict[str, Any]:
        """What is not given is as the account's first key has it: another key of the same account sees no more."""
        given, own = self.model_fields_set, self.settings()
        limits = {name: getattr(self if name in given else first, name) for name in LIMITS}
        return {
            **own,
            "role": own["role"] if "role" in given else first.role,
            "principals": self.principals if "principals" in given else first.principals,
            "scopes": Scopes(
                *(getattr(self if name in given else first, name) for name in ("models", "collections"))
            ),
            "limits": Limits(**limits),
            "account_id": first.account_id,
        }


class UpdateAccount(Body):
    name: str | None = None
    role: ProjectRole | None = None


class UpdateKey(KeyLimits):
    name: str | None = None
    role: ProjectRole | None = None

    def changed_limits(self, key: Key) -> Limits:
        """What is given, over what the key has: null takes a limit away."""
        return Limits(**{name: getattr(self if name in self.model_fields_set else key, name) for name in LIMITS})


class RotateKey(Body):
    overlap_seconds: Annotated[int, Field(ge=0)] | None = None


class CreateAdminKey(Body):
    name: str
    expires_at: Time | None = None
    expires_in_seconds: Count | None = None


def expiry(expires_at: int | None, expires_in_seconds: int | None) -> int | None:
    """Raises: InvalidInputError."""
    if expires_at is not None and expires_in_seconds is not None:
        raise InvalidInputError("give expires_at or expires_in_seconds, not both", param="expires_in_seconds")
    return expires_at if expires_in_seconds is None else int(time.time()) + expires_in_seconds


# Queries


def many(request: Request, name: str) -> list[str]:
    """A list in a query, as the client writes it (`name[]=a&name[]=b`), or without brackets."""
    return [value for key, value in request.query_params.multi_items() if key in (name, f"{name}[]")]


def whole_number(request: Request, name: str, *, at_least: int, at_most: int) -> int | None:
    """None if it is not given. Raises: InvalidInputError."""
    text = request.query_params.get(name)
    if text is None:
        return None
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
    if not at_least <= value <= at_most:
        raise InvalidInputError(
            f"{name} = {text[:40]!r}: expected a whole number from {at_least} to {at_most}", param=name
        )
    return value


def audit_query(request: Request) -> AuditQuery:
    """Raises: InvalidInputError."""

    def bound(name: str) -> int | None:
        return whole_number(request, f"effective_at[{name}]", at_least=0, at_most=2**53)

    since = [time for time in (bound("gte"), _plus_one(bound("gt"))) if time is not None]
    until = [time for time in (bound("lt"), _plus_one(bound("lte"))) if time is not None]
    if many(request, "actor_emails"):
        raise InvalidInputError("actor_emails: nobody has an address here; use actor_ids", param="actor_emails")
    return AuditQuery(
        since=max(since, default=None),
        until=min(until, default=None),
        project_ids=many(request, "project_ids"),
        actions=many(request, "event_types"),
        key_ids=many(request, "actor_ids"),
        object_ids=many(request, "resource_ids"),
        after=request.query_params.get("after"),
        before=request.query_params.get("before"),
        limit=whole_number(request, "limit", at_least=1, at_most=100) or 20,
    )


def _plus_one(value: int | None) -> int | None:
    return None if value is None else value + 1
