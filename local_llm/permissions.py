"""Who asks, and what they may see. One rule for documents, files, models and collections alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# An owner manages the projects and everybody's keys, and administers its own project; an admin administers that.
Role = Literal["owner", "admin", "member"]

Principals = tuple[str, ...] | None
"""Whose documents are visible to a search; None: all of them."""

Allow = Sequence[str] | None
"""Principals, any of which may see a thing; None: everyone in the project."""

# Ends the name of a scope that stands for all names beginning so: what a project trains later has no name yet.
ANY_REST = "*"


@dataclass(frozen=True)
class Limits:
    """What a key may use. None: no limit. A day begins at midnight UTC."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None


@dataclass(frozen=True)
class Keeps:
    """What the caller's project has us keep of its questions and answers: nothing, unless it says so."""

    log_content: bool = False
    store_chats: bool = False
    store_responses: bool = False


@dataclass(frozen=True)
class Caller:
    """The holder of a key, or the local user of a box without keys (an owner, in the local project).

    `models` are the names that it may say as a model, profiles among them, and `collections` the ids of those it
    reaches; None: all of its project. What is outside is to the caller as if it were not there.
    """

    project_id: str
    role: Role
    principals: tuple[str, ...] = ()
    key_id: str | None = None
    models: tuple[str, ...] | None = None
    collections: tuple[str, ...] | None = None
    limits: Limits = Limits()
    keeps: Keeps = Keeps()

    @property
    def owns(self) -> bool:
        """Whether it manages projects, keys and accounts of use for the whole box."""
        return self.role == "owner"

    @property
    def administers(self) -> bool:
        """Whether it may do everything in its own project, as far as its scopes reach."""
        return self.role in ("owner", "admin")

    @property
    def is_scoped(self) -> bool:
        """Whether it reaches only a part of its project's models or collections."""
        return self.models is not None or self.collections is not None

    @property
    def reads_all(self) -> bool:
        """Whether it may read what others of its project were answered, which may hold anything in the project."""
        return self.administers and not self.is_scoped

    @property
    def sees(self) -> Principals:
        """Principals to filter by; None: no filter, an admin sees all of its project."""
        return None if self.administers else self.principals

    def may_see(self, allow: Sequence[str] | None) -> bool:
        """Whether something that `allow` names is visible. None: everyone in the project."""
        if allow is None or self.administers or not set(allow).isdisjoint(self.principals):
            return True
        return self.key_id is not None and key_principal(self.key_id) in allow

    def may_name(self, *names: str) -> bool:
        """Whether the key's scope holds a model by any of these names."""
        return self.models is None or any(_matches(scope, name) for scope in self.models for name in names)

    def may_reach(self, collection_id: str | None) -> bool:
        """Whether the key's scope holds a collection. None, no collection, is reached by everyone."""
        return collection_id is None or self.collections is None or collection_id in self.collections

    def may_open(self, allow: Sequence[str] | None, uploaded_by: str | None) -> bool:
        """Whether an upload is visible. Uploads lie outside collections: who reaches only some sees its own."""
        return self.may_see(allow) and (self.collections is None or uploaded_by == self.key_id)


def key_principal(key_id: str) -> str:
    """Names one key alone, for what was made for it. No document names it, and no search filters by it."""
    return f"key:{key_id}"


def shared(*allows: Allow) -> list[str] | None:
    """Principals each of which may see all of these things. With none left only admins may.

    A key that may see one thing by one principal and another by a second is left out too: one list cannot say that.
    """
    named = [set(allow) for allow in allows if allow is not None]
    return sorted(set.intersection(*named)) if named else None


def local_admin(project_id: str) -> Caller:
    """Whoever is on the box itself: an owner, in this project."""
    return Caller(project_id, "owner")


def _matches(scope: str, name: str) -> bool:
    return name.startswith(scope[:-1]) if scope.endswith(ANY_REST) else name == scope
