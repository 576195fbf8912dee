"""Who asks, and what they may see. One rule for documents and adapters alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["admin", "member"]

Principals = tuple[str, ...] | None
"""Whose documents are visible to a search; None: all of them."""


@dataclass(frozen=True)
class Caller:
    """The holder of a key, or the local user of a box without keys (an admin of the local project)."""

    project_id: str
    role: Role
    principals: tuple[str, ...] = ()
    key_id: str | None = None

    @property
    def sees(self) -> Principals:
        """Principals to filter by; None: no filter, an admin sees all of its project."""
        return None if self.role == "admin" else self.principals

    def may_see(self, allow: Sequence[str] | None) -> bool:
        """Whether something that `allow` names is visible. None: everyone in the project."""
        if allow is None or self.role == "admin" or not set(allow).isdisjoint(self.principals):
            return True
        return self.key_id is not None and key_principal(self.key_id) in allow


def key_principal(key_id: str) -> str:
    """Names one key alone, for what was made for it. No document names it, and no search filters by it."""
    return f"key:{key_id}"


def local_admin(project_id: str) -> Caller:
    return Caller(project_id, "admin")
