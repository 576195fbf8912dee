"""Kept chats as those see them who may: the key that asked, and admins of all of its project."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Select, delete, or_, select
from sqlalchemy.orm import Session

from local_llm.errors import NotFoundError
from local_llm.identifiers import now
from local_llm.json_pairs import has_pair
from local_llm.permissions import Caller
from local_llm.state import ChatRow, State

ROWS_AT_ONCE = 100

Order = Literal["asc", "desc"]
Rating = Literal["good", "bad"]
# Rated good; corrected, however rated; either.
Reviewed = Literal["good", "corrected", "any"]


@dataclass(frozen=True)
class Filter:
    """`metadata`: all of these pairs. `model`: as the client asked for it, or as the answer names it."""

    model: str | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Review:
    rating: Rating
    correction: str | None = None
    note: str | None = None


def list_chats(
    state: State, caller: Caller, wanted: Filter, *, after: str | None, limit: int, order: Order
) -> tuple[list[ChatRow], bool]:
    """Those that the caller may see, and whether there are more. Raises: NotFoundError if `after` is none."""
    query = _visible(caller, wanted)
    column = ChatRow.sequence
    with state.reading() as session:
        if after is not None:
            last = _get(session, after, caller, "after").sequence
            query = query.where(column > last if order == "asc" else column < last)
        query = query.order_by(column.asc() if order == "asc" else column.desc()).limit(limit + 1)
        rows = list(session.scalars(query))
    return rows[:limit], len(rows) > limit


def get_chat(state: State, chat_id: str, caller: Caller) -> ChatRow:
    """Raises: NotFoundError."""
    with state.reading() as session:
        return _get(session, chat_id, caller)


def set_metadata(state: State, chat_id: str, caller: Caller, metadata: Mapping[str, str]) -> ChatRow:
    """Raises: NotFoundError."""
    with state.session() as session:
        row = _get(session, chat_id, caller)
        row.labels = dict(metadata)
        return row


def rate_chat(state: State, chat_id: str, caller: Caller, review: Review) -> ChatRow:
    """The last review holds. Raises: NotFoundError."""
    with state.session() as session:
        row = _get(session, chat_id, caller)
        row.size += len(review.correction or "") - len(row.correction or "")
        row.rating, row.correction, row.reviewer_note = review.rating, review.correction, review.note
        row.rated_by, row.rated_at = caller.key_id, now()
        return row


def delete_chat(state: State, chat_id: str, caller: Caller) -> None:
    """Raises: NotFoundError."""
    with state.session() as session:
        row = _get(session, chat_id, caller)
        session.execute(delete(ChatRow).where(ChatRow.sequence == row.sequence))


def reviewed_chats(state: State, caller: Caller, wanted: Filter, reviewed: Reviewed) -> Iterator[ChatRow]:
    """Those fit to be learned from, the oldest first."""
    good, corrected = ChatRow.rating == "good", ChatRow.correction.is_not(None)
    condition = {"good": good, "corrected": corrected, "any": or_(good, corrected)}[reviewed]
    query = _visible(caller, wanted).where(condition).order_by(ChatRow.sequence)
    with state.reading() as session:
        yield from session.scalars(query.execution_options(yield_per=ROWS_AT_ONCE))


def _visible(caller: Caller, wanted: Filter) -> Select[tuple[ChatRow]]:
    query = select(ChatRow).where(ChatRow.project_id == caller.project_id)
    if not caller.reads_all:
        query = query.where(ChatRow.key_id == caller.key_id)
    if wanted.model is not None:
        query = query.where(
            or_(ChatRow.model == wanted.model, ChatRow.request["model"].as_string() == wanted.model)
        )
    for key, value in (wanted.metadata or {}).items():
        query = query.where(has_pair(ChatRow.labels, key, value))
    return query


def _get(session: Session, chat_id: str, caller: Caller, param: str = "completion_id") -> ChatRow:
    row = session.scalars(select(ChatRow).where(ChatRow.id == chat_id)).first()
    if row is None or row.project_id != caller.project_id or (not caller.reads_all and row.key_id != caller.key_id):
        raise NotFoundError(
            f"Chat completion {chat_id:.80} not found.",
            hint="chats are kept that were asked with store=true, where the project keeps chats",
            param=param,
        )
    return row


def as_json(row: ChatRow) -> dict[str, Any]:
    """As the API has it; what a reviewer said stands beside."""
    return {
        **row.answer,
        "id": row.id,
        "object": "chat.completion",
        "created": row.created_at,
        "model": row.model,
        "metadata": row.labels,
        "rating": row.rating,
        "correction": row.correction,
        "reviewer_note": row.reviewer_note,
        "rated_by": row.rated_by,
        "rated_at": row.rated_at,
    }


def messages_of(row: ChatRow) -> list[dict[str, Any]]:
    """What the client sent, each message with an id."""
    return [
        {
            "id": f"{row.id}-{number}",
            "name": None,
            **message,
            "content": None if isinstance(message.get("content"), list) else message.get("content"),
            "content_parts": message["content"] if isinstance(message.get("content"), list) else None,
        }
        for number, message in enumerate(row.request["messages"])
    ]
