"""Who may see what an export of chats holds: remembered before anybody can take the file (local_llm.provenance)."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from index.interface import Index
from local_llm.errors import NotFoundError
from local_llm.permissions import Allow, Caller, local_admin, shared
from local_llm.provenance import fingerprint, remember
from local_llm.state import State
from serving.chats.origins import Document, Origin


@dataclass(frozen=True)
class Restricted:
    """Examples that were made from passages that not everyone in the project may see.

    `unnoted` of them were kept when nobody noted whose passages these were: they are for admins. `unknowable`: none
    of their texts is long enough to be known again.
    """

    examples: int = 0
    unnoted: int = 0
    unknowable: int = 0


@dataclass(frozen=True)
class _Example:
    sha256s: tuple[str, ...]
    documents: frozenset[Document] | None


class Audiences:
    """Of one export: add() each example, then remember() once."""

    def __init__(self) -> None:
        self._examples: list[_Example] = []

    def add(self, origin: Origin | None) -> None:
        """None: made from no documents."""
        if origin is not None:
            self._examples.append(_Example(tuple(map(fingerprint, origin.texts)), origin.documents))

    def remember(
        self, state: State, project_id: str, open_index: Callable[[], AbstractContextManager[Index]]
    ) -> Restricted:
        """From now on a training file that holds one of these examples is for those who may see the documents that
        it was made from, as these are now. The index is opened only if there are any.

        Raises: UnavailableError, LockedError if the index cannot be asked.
        """
        allows = self._allows(project_id, open_index)
        audiences: dict[str, Allow] = {}
        examples = unknowable = 0
        for one in self._examples:
            allow = _audience(one.documents, allows)
            examples += allow is not None
            unknowable += allow is not None and not one.sha256s
            for sha256 in one.sha256s:  # the same can be said of several documents
                audiences[sha256] = shared(audiences.get(sha256), allow)
        remember(state, project_id, audiences)
        return Restricted(examples, sum(one.documents is None for one in self._examples), unknowable)

    def _allows(
        self, project_id: str, open_index: Callable[[], AbstractContextManager[Index]]
    ) -> Mapping[Document, Allow]:
        """Of all documents of these collections. Asked as an admin: whoever exports need not see them any more."""
        collections = {collection for one in self._examples for collection, _ in one.documents or ()}
        if not collections:
            return {}
        admin = local_admin(project_id)
        with open_index() as index:
            return {
                (collection, document): allow
                for collection in sorted(collections)
                for document, allow in _documents(index, admin, collection)
            }


def _documents(index: Index, admin: Caller, collection: str) -> Iterable[tuple[str, Allow]]:
    try:
        return [(one.id, one.allow) for one in index.documents(admin, collection)]
    except NotFoundError:  # the collection is gone, and its documents with it
        return []


def _audience(documents: frozenset[Document] | None, allows: Mapping[Document, Allow]) -> Allow:
    """Of a document that is gone, or was not noted, nobody can say who may see it: then admins only."""
    return () if documents is None else shared(*(allows.get(one, ()) for one in documents))
