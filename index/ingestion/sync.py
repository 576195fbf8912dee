"""What has to change so that a part of a collection is what a folder holds."""

from collections.abc import Sequence
from pathlib import Path

from index.collection.store import CollectionStore
from index.ingestion.ingest import find_sources
from index.interface import DocumentInfo, Source, SyncReport
from local_llm.errors import InvalidInputError
from local_llm.fileio import sha256_of


def find_scoped(folder: Path, scope: str) -> list[Source]:
    """The files of a folder, named by `scope` and their paths in it. An empty scope is the whole collection.

    Raises: InvalidInputError if it is no folder or holds no files: an unmounted share must not empty a collection.
    """
    if not folder.expanduser().is_dir():
        raise InvalidInputError(f"{folder} is no folder", hint="to add single files: local-llm index add")
    if scope.startswith("/") or (scope and not scope.endswith("/")):
        raise InvalidInputError(f"the scope {scope!r} has to end with a slash, as in handbook/", param="scope")
    return [
        Source(source.path, scope + source.name, source.filename, source.file_id)
        for source in find_sources([folder])
    ]


def plan_sync(
    sources: Sequence[Source], present: Sequence[DocumentInfo], store: CollectionStore, scope: str
) -> SyncReport:
    """present: the documents that the caller sees.

    Raises: InvalidInputError if a source lies outside the scope, or if there is none.
    """
    if not sources:
        raise InvalidInputError(
            "there is no file to sync with",
            hint="to remove documents: local-llm index remove",
            param="sources",
        )
    for source in sources:
        if not source.name.startswith(scope):
            raise InvalidInputError(f"{source.name} does not begin with the scope {scope!r}", param="scope")
    there = {info.name for info in present if info.name.startswith(scope)}
    named = {source.name for source in sources}
    changed = [source.name for source in sources if source.name in there and _differs(source, store)]
    return SyncReport(
        to_add=tuple(sorted(named - there)),
        to_replace=tuple(sorted(changed)),
        to_remove=tuple(sorted(there - named)),
        unchanged=len(named & there) - len(changed),
        ingest=None,
    )


def _differs(source: Source, store: CollectionStore) -> bool:
    found = store.find(source.name)
    try:
        return found is None or found.sha256 != sha256_of(source.path)
    except OSError:  # it stays as it is; the ingestion says why
        return False
