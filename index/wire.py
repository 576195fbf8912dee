"""How calls, answers and errors of the index look as JSON between its server and its clients."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from index.interface import (
    AttachedBatch,
    AttachedFile,
    Attachment,
    CollectionInfo,
    CollectionStats,
    CollectionUsage,
    DocumentInfo,
    DocumentText,
    Embeddings,
    FileCounts,
    FilePage,
    FileQuery,
    Found,
    Hit,
    IngestReport,
    Page,
    Ranking,
    Record,
    SearchQuality,
    Skipped,
    Source,
    Splitting,
    StoredPassage,
    SyncReport,
)
from local_llm import errors
from local_llm.errors import InvalidInputError, LocalLLMError
from local_llm.permissions import Caller

# What the server answers: methods of `index.interface.Index`, one path each. Long ones tell of their progress.
METHODS = (
    "create",
    "update",
    "collections",
    "get",
    "delete",
    "stats",
    "put",
    "set_access",
    "remove",
    "remove_matching",
    "search",
    "find",
    "documents",
    "document",
    "current",
    "records",
    "passages",
    "embed",
)
# Those of `index.attached_files.AttachedFiles`, below /files.
FILE_METHODS = (
    "check",
    "attach",
    "attach_batch",
    "files",
    "file",
    "batch",
    "usage",
    "update",
    "detach",
    "cancel_batch",
    "forget",
)
LONG_METHODS = ("add", "sync", "reembed")

Json = dict[str, Any]

# Errors whose constructors take more than a message do not come out of the index.
_ERRORS = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LocalLLMError) and kind is not errors.TrainingDataError
}


def caller_to_json(caller: Caller) -> Json:
    """Without models, limits and what is kept of questions: those are for the gateway to know."""
    return {
        "project_id": caller.project_id,
        "role": caller.role,
        "principals": caller.principals,
        "key_id": caller.key_id,
        "collections": caller.collections,
    }


def caller_from_json(value: Json) -> Caller:
    collections = _as_tuple(value["collections"])
    return Caller(**{**value, "principals": tuple(value["principals"]), "collections": collections})


def call_to_bytes(caller: Caller, arguments: Mapping[str, Any]) -> bytes:
    """In ASCII, and with NaN: what cannot be right is for the index to refuse, in its own words.

    Raises: InvalidInputError for values nested so deep that they cannot be written down.
    """
    try:
        plain = {name: _plain(value) for name, value in arguments.items()}
        return json.dumps({"caller": caller_to_json(caller), **plain}).encode("ascii")
    except RecursionError:
        raise InvalidInputError("the request is nested too deep") from None


def arguments_from_json(arguments: Mapping[str, Any]) -> Json:
    """Arguments of a method as it takes them: those that are values of ours are known by their names."""
    return {name: _READ.get(name, _as_it_is)(value) for name, value in arguments.items()}


def answer_to_bytes(answer: Any) -> bytes:
    """Of what JSON has, and of the dataclasses of `index.interface`. One line."""
    return json.dumps(answer, default=_fields, separators=(",", ":")).encode("ascii")


def _fields(value: Any) -> Json:
    if isinstance(value, Embeddings):  # hundreds of thousands of numbers
        return {**vars(value), "vectors": _packed(value.vectors)}
    return vars(value)


def hits(values: Sequence[Json]) -> list[Hit]:
    return [Hit(**value) for value in values]


def found(value: Json) -> Found:
    return Found(**{**value, "hits": hits(value["hits"])})


def collection_info(value: Json) -> CollectionInfo:
    return CollectionInfo(**{**value, "ranking": Ranking(**value["ranking"])})


def collection_stats(value: Json) -> CollectionStats:
    search = value["search"]
    return CollectionStats(**{**value, "search": None if search is None else SearchQuality(**search)})


def document_infos(values: Sequence[Json]) -> list[DocumentInfo]:
    return [DocumentInfo(**{**value, "allow": _as_tuple(value["allow"])}) for value in values]


def document_text(value: Json) -> DocumentText:
    return DocumentText(**{**value, "pages": tuple(Page(**page) for page in value["pages"])})


def records(values: Sequence[Json]) -> list[Record]:
    return [Record(**value) for value in values]


def stored_passages(values: Sequence[Json]) -> list[StoredPassage]:
    return [StoredPassage(**value) for value in values]


def attached_file(value: Json) -> AttachedFile:
    return AttachedFile(**{**value, "allow": _as_tuple(value["allow"])})


def file_page(value: Json) -> FilePage:
    return FilePage([attached_file(one) for one in value["files"]], value["has_more"])


def attached_batch(value: Json) -> AttachedBatch:
    return AttachedBatch(**{**value, "files": FileCounts(**value["files"])})


def collection_usage(value: Json) -> CollectionUsage:
    return CollectionUsage(**{**value, "files": FileCounts(**value["files"])})


def embeddings(value: Json) -> Embeddings:
    return Embeddings(**{**value, "vectors": _unpacked(value["vectors"])})


def ingest_report(value: Json) -> IngestReport:
    return IngestReport(**{**value, "skipped": tuple(Skipped(**one) for one in value["skipped"])})


def sync_report(value: Json) -> SyncReport:
    names = {key: tuple(value[key]) for key in ("to_add", "to_replace", "to_remove")}
    return SyncReport(**{**value, **names, "ingest": value["ingest"] and ingest_report(value["ingest"])})


def error_to_json(error: LocalLLMError) -> Json:
    kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in _ERRORS)
    told: Json = {"kind": kind, "message": error.message, "hint": error.hint, "param": error.param}
    if isinstance(error, errors.UnavailableError):
        told["retry_after_seconds"] = error.retry_after_seconds
    return told


def error_from_json(value: Mapping[str, Any]) -> LocalLLMError:
    """Of the same class, or of the nearest that is of `local_llm.errors`."""
    rest = {name: told for name, told in value.items() if name not in ("kind", "message")}
    return _ERRORS[value["kind"]](value["message"], **rest)


def _as_tuple(allow: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if allow is None else tuple(allow)


def _packed(vectors: list[list[float]]) -> list[str]:
    return [b64encode(np.asarray(one, "<f4").tobytes()).decode() for one in vectors]


def _unpacked(vectors: list[str]) -> list[list[float]]:
    return [np.frombuffer(b64decode(one), "<f4").tolist() for one in vectors]


def _attachment(value: Json) -> Attachment:
    splitting = Splitting(**value["splitting"])
    return Attachment(**{**value, "allow": _as_tuple(value["allow"]), "splitting": splitting})


def _plain(value: Any) -> Any:
    """Dataclasses, paths, and what holds them, as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(vars(value))
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _as_it_is(value: Any) -> Any:
    return value


_READ: dict[str, Callable[[Any], Any]] = {
    "sources": lambda values: [Source(**{**value, "path": Path(value["path"])}) for value in values],
    "records": records,
    "attachments": lambda values: [_attachment(value) for value in values],
    "listing": lambda value: FileQuery(**value),
    "ranking": lambda value: None if value is None else Ranking(**value),
    "splitting": lambda value: None if value is None else Splitting(**value),
    "encoded": lambda value: None if value is None else Path(value),
}
