"""A collection as a document store of Haystack: for its suite, and as an example."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from haystack.dataclasses import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError

from index.interface import Index, Record
from local_llm.errors import InvalidInputError
from local_llm.permissions import Caller

# An attribute: JSON of the document but for its content.
DOCUMENT = "_document"

COMPARISONS = {"==": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte", "in": "in", "not in": "nin"}
ORDERINGS = (">", ">=", "<", "<=")
NEGATED = {"eq": "ne", "ne": "eq", "in": "nin", "nin": "in", "and": "or", "or": "and"}

Json = dict[str, Any]


class CollectionDocumentStore:
    def __init__(self, index: Index, caller: Caller, collection: str):
        self._index = index
        self._where = (caller, collection)

    def count_documents(self) -> int:
        return self._index.stats(*self._where).documents

    def filter_documents(self, filters: Json | None = None) -> list[Document]:
        return [_document(record) for record in self._matching(filters)]

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """No policy is FAIL."""
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise ValueError("expected a list of documents")
        if policy != DuplicatePolicy.OVERWRITE:
            there = {one.name for one in self._index.records(*self._where, names=[one.id for one in documents])}
            if there and policy != DuplicatePolicy.SKIP:
                raise DuplicateDocumentError(f"already there: {', '.join(sorted(there))}")
            documents = [one for one in documents if one.id not in there]
        self._index.put(*self._where, [_record(one) for one in documents])
        return len(documents)

    def delete_documents(self, document_ids: list[str]) -> None:
        self._index.remove_matching(*self._where, names=document_ids)

    def delete_all_documents(self, recreate_collection: bool = False) -> None:
        if recreate_collection:
            self._index.delete(*self._where)
            self._index.create(*self._where)
        else:
            self._index.remove_matching(*self._where)

    def delete_by_filter(self, filters: Json) -> int:
        return self._index.remove_matching(*self._where, filters=filter_of(filters))

    def update_by_filter(self, filters: Json, meta: Json) -> int:
        found = self._matching(filters)
        for record in found:
            document = _document(record)
            document = Document.from_dict({**document.to_dict(flatten=False), "meta": {**document.meta, **meta}})
            self._index.set_access(*self._where, record.name, attributes=_attributes(document))
        return len(found)

    def _matching(self, filters: Json | None) -> list[Record]:
        return self._index.records(*self._where, filters=filter_of(filters) if filters else None)


def _record(document: Document) -> Record:
    return Record(document.id, document.content or "", attributes=_attributes(document))


def _attributes(document: Document) -> Json:
    whole = json.dumps({**document.to_dict(flatten=False), "content": None})
    scalars = {key: value for key, value in document.meta.items() if isinstance(value, str | int | float)}
    return {**scalars, DOCUMENT: whole}


def _document(record: Record) -> Document:
    return Document.from_dict({**json.loads(record.attributes[DOCUMENT]), "content": record.text})


def filter_of(filters: Mapping[str, Any]) -> Json:
    """Raises: FilterError."""
    try:
        return _group(filters) if "conditions" in filters else _comparison(filters)
    except (KeyError, InvalidInputError) as error:
        raise FilterError(f"{filters!r}: {error}") from error


def _group(filters: Mapping[str, Any]) -> Json:
    inner = [filter_of(one) for one in filters["conditions"]]
    join = {"AND": "and", "OR": "or", "NOT": "and"}[filters["operator"]]
    joined = {"type": join, "filters": inner}
    return _negated(joined) if filters["operator"] == "NOT" else joined


def _comparison(filters: Mapping[str, Any]) -> Json:
    key, operator, value = filters["field"].removeprefix("meta."), filters["operator"], filters["value"]
    if operator in ("in", "not in") and not isinstance(value, list):
        raise FilterError(f"{operator} needs a list, not {value!r}")
    if operator in ORDERINGS:
        _refuse_unordered(value)
    if value is None:
        return _compared_with_none(operator, key)
    return {"type": COMPARISONS[operator], "key": key, "value": value}


def _refuse_unordered(value: Any) -> None:
    """Haystack orders numbers and dates."""
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError as error:
            raise FilterError(f"{value!r} is no date") from error
    elif not (value is None or isinstance(value, int | float)):
        raise FilterError(f"{value!r} is in no order")


def _compared_with_none(operator: str, key: str) -> Json:
    if operator == "==":
        raise FilterError(f"documents that lack {key!r} cannot be asked for")
    nothing = {"type": "in", "key": key, "value": []}
    return _present(key) if operator == "!=" else nothing


def _present(key: str) -> Json:
    """True for every value: each is text, number, true or false, and orders only with its kind."""
    least: list[Json] = [{"type": "gte", "key": key, "value": one} for one in ("", -(2**53))]
    return {"type": "or", "filters": [*least, {"type": "in", "key": key, "value": [True, False]}]}


def _negated(found: Json) -> Json:
    if found["type"] not in NEGATED:
        raise FilterError(
            f"the negation of {found['type']} is no filter here: it would have to match what is missing"
        )
    negated = {**found, "type": NEGATED[found["type"]]}
    return {**negated, "filters": [_negated(one) for one in found["filters"]]} if "filters" in found else negated
