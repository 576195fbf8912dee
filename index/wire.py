"""How calls, answers and errors of the index look as JSON between its server and its clients."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from index.interface import (
    CollectionInfo,
    CollectionStats,
    DocumentInfo,
    DocumentText,
    Hit,
    IngestReport,
    Page,
    Skipped,
    Source,
)
from local_llm import errors
from local_llm.errors import LocalLLMError
from local_llm.permissions import Caller

# What the server answers besides the long `add`: methods of `index.interface.Index`, one path each.
METHODS = ("create", "collections", "get", "delete", "stats", "remove", "search", "documents", "document")

Json = dict[str, Any]

# Errors whose constructors take more than a message do not come out of the index.
_ERRORS = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LocalLLMError) and kind is not errors.TrainingDataError
}


def caller_to_json(caller: Caller) -> Json:
    return asdict(caller)


def caller_from_json(value: Json) -> Caller:
    return Caller(**{**value, "principals": tuple(value["principals"])})


def sources_to_json(sources: Sequence[Source]) -> list[Json]:
    return [{**asdict(source), "path": str(source.path)} for source in sources]


def sources_from_json(values: Sequence[Json]) -> list[Source]:
    return [Source(**{**value, "path": Path(value["path"])}) for value in values]


def result_to_json(result: Any) -> Any:
    """A dataclass of `index.interface`, a list of them, a number or None."""
    if isinstance(result, list):
        return [asdict(one) for one in result]
    return result if result is None or isinstance(result, int) else asdict(result)


def hits(values: Sequence[Json]) -> list[Hit]:
    return [Hit(**value) for value in values]


def collection_infos(values: Sequence[Json]) -> list[CollectionInfo]:
    return [CollectionInfo(**value) for value in values]


def collection_stats(value: Json) -> CollectionStats:
    return CollectionStats(**value)


def document_infos(values: Sequence[Json]) -> list[DocumentInfo]:
    return [DocumentInfo(**{**value, "allow": _as_tuple(value["allow"])}) for value in values]


def document_text(value: Json) -> DocumentText:
    return DocumentText(**{**value, "pages": tuple(Page(**page) for page in value["pages"])})


def ingest_report(value: Json) -> IngestReport:
    return IngestReport(**{**value, "skipped": tuple(Skipped(**one) for one in value["skipped"])})


def error_to_json(error: LocalLLMError) -> Json:
    kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in _ERRORS)
    return {"kind": kind, "message": error.message, "hint": error.hint, "param": error.param}


def error_from_json(value: Mapping[str, Any]) -> LocalLLMError:
    return _ERRORS[value["kind"]](value["message"], hint=value["hint"], param=value["param"])


def _as_tuple(allow: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if allow is None else tuple(allow)
