"""Kept responses and their items, as the API shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from local_llm.errors import NotFoundError
from local_llm.state import ResponseRow
from serving.responses.requests import LOGPROBS, RESULTS
from serving.vector_stores.answers import page_as_json

Json = dict[str, Any]


@dataclass(frozen=True)
class ItemQuery:
    after: str | None
    limit: int
    order: str


def shown(row: ResponseRow, include: Sequence[str]) -> Json:
    """As it was answered; what was included then only if it is asked for again."""
    return {**row.response, "output": [_shown(item, include) for item in row.response["output"]]}


def page_of(row: ResponseRow, query: ItemQuery) -> Json:
    """Of the items that came with the request itself. Raises: NotFoundError if `after` is none of them."""
    items = list(row.input_items)
    if query.order == "desc":
        items.reverse()
    start = 0
    if query.after is not None:
        ids = [item["id"] for item in items]
        if query.after not in ids:
            raise NotFoundError(f"No item found with id '{query.after:.80}'.", param="after")
        start = ids.index(query.after) + 1
    rest = items[start:]
    return page_as_json(rest[: query.limit], len(rest) > query.limit)


def _shown(item: Json, include: Sequence[str]) -> Json:
    if item["type"] == "file_search_call" and RESULTS not in include:
        return {**item, "results": None}
    if item["type"] == "message" and LOGPROBS not in include:
        return {**item, "content": [{**part, "logprobs": []} for part in item["content"]]}
    return item
