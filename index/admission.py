"""What a caller may ask of a document's permissions and attributes, checked before anything is written."""

from collections.abc import Mapping, Sequence
from typing import Any

from index.collection.attributes import checked_allow, checked_attributes
from index.collection.documents import Access
from index.collection.store import CollectionStore
from local_llm.errors import ForbiddenError
from local_llm.permissions import Caller


def access_of(allow: Sequence[str] | None, attributes: Mapping[str, Any] | None) -> Access:
    """Raises: InvalidInputError for an attribute that is neither text nor number nor true nor false."""
    return Access(
        None if allow is None else checked_allow(allow),
        None if attributes is None else checked_attributes(attributes, "attributes"),
    )


def refuse_beyond_own(caller: Caller, allow: Sequence[str] | None) -> None:
    """Raises: ForbiddenError."""
    foreign = set(allow or ()) - set(caller.principals)
    if not caller.administers and foreign:
        raise ForbiddenError(
            f"a member may only name its own principals; {', '.join(sorted(foreign))} are not among them",
            param="allow",
        )


def refuse_unseen(caller: Caller, store: CollectionStore, names: Sequence[str]) -> None:
    """A member must not replace what it may not see. Raises: ForbiddenError."""
    for name in names if not caller.administers else ():
        found = store.find(name)
        if found is not None and not caller.may_see(found.allow):
            raise ForbiddenError(f"you may not replace the document {name}", param="name")
