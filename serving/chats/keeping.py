"""The buffer between answers and their table: who answers hands a chat over and goes on.

A kept chat is durable within a second of its last byte. A kill in that second loses it: nothing was acknowledged.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from local_llm.errors import InvalidInputError
from local_llm.identifiers import new_id, now
from local_llm.permissions import Caller
from local_llm.state import ChatRow, State
from local_llm.trailing import still_wanted
from serving.answering.events import TokenUsage
from serving.chats.assembling import streamed_answer, whole_answer
from serving.sizes import characters_of
from serving.vector_stores.requests import Metadata

if TYPE_CHECKING:
    from serving.answering.answer import Answer
    from serving.answering.prepare import Prepared, Question

# Larger ones hold images; nobody trains on them, and the state database stays small.
LARGEST_CHAT_CHARACTERS = 1 << 20
# So long a project that was full is taken to be still so.
FULL_SECONDS = 60.0
# What may wait for a slow disk. Beyond, chats are answered and not kept.
MOST_WAITING_CHARACTERS = 64 << 20
# Their ids are parameters of one question to the database, which takes 32,766 (SQLite) or 65,535 (PostgreSQL).
WRITTEN_AT_ONCE = 10_000

METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(Metadata)

log = logging.getLogger("local_llm.chats")


@dataclass(frozen=True)
class _Chat:
    """What waits is held: nothing but what becomes of it the row."""

    caller: Caller
    body: Mapping[str, Any]  # as the client sent it
    prompt: Mapping[str, Any] | None  # see _prompt_of
    model: str
    sent: Sequence[bytes]
    usage: TokenUsage
    ended_at: int
    size: int


class ChatKeeper:
    """wants() and add() never wait; write() is called once a second by the thread of rows that may trail."""

    def __init__(self, state: State, project_chat_bytes: int):
        self._state = state
        self._project_chat_bytes = project_chat_bytes
        self._full: dict[str, float] = {}  # when a project was seen to be
        self._waiting: deque[_Chat] = deque()
        self._size = 0
        self._writing = threading.Lock()

    def wants(self, question: "Question") -> bool:
        """Whether this chat is to be kept. Raises: InvalidInputError."""
        store = question.body.get("store")
        if store is None or store is False:
            return False
        if store is not True:
            raise InvalidInputError(f"store: expected true or false, not {store!r:.60}", param="store")
        if not question.caller.keeps.store_chats:
            return False
        _refuse_metadata(question.body.get("metadata"))
        return True

    def has_room(self, caller: Caller) -> bool:
        """Whether the project may keep more, as far as was last seen."""
        seen = self._full.get(caller.project_id)
        return seen is None or time.monotonic() - seen > FULL_SECONDS

    def add(self, answer: "Answer", sent: Sequence[bytes]) -> None:
        """Takes a chat whose answer is all there."""
        prepared = answer.prepared
        body, prompt = prepared.question.body, _prompt_of(prepared)
        size = _size_of(body) + _size_of(prompt) + sum(map(len, sent))
        if size > LARGEST_CHAT_CHARACTERS or self._size + size > MOST_WAITING_CHARACTERS:
            log.warning("a chat of %d characters or more is not kept: too large, or too many wait", size)
            return
        self._size += size
        caller, model = prepared.question.caller, prepared.target.model
        self._waiting.append(_Chat(caller, body, prompt, model, sent, answer.usage, now(), size))

    def write(self) -> None:
        """Returns when all that was added before is in the database. Any thread may call it.

        Raises: SQLAlchemyError, StateUnavailableError, and what else the database may: what could not be written
        waits on.
        """
        with self._writing:
            left = len(self._waiting)
            while left > 0:
                chats = [self._waiting.popleft() for _ in range(min(left, WRITTEN_AT_ONCE))]
                try:
                    self._insert([row for chat in chats if (row := _row_of(chat)) is not None])
                except Exception:
                    self._waiting.extendleft(reversed(chats))
                    raise
                self._size -= sum(chat.size for chat in chats)
                left -= len(chats)

    def _insert(self, rows: list[ChatRow]) -> None:
        with self._state.session() as session:
            there = set(session.scalars(select(ChatRow.id).where(ChatRow.id.in_([row.id for row in rows]))))
            new = [row for row in {row.id: row for row in rows}.values() if row.id not in there]
            new = still_wanted(session, "kept chats", new, attrgetter("project_id"))
            for project_id in {row.project_id for row in new}:
                session.add_all(self._fitting(session, project_id, new))

    def _fitting(self, session: Session, project_id: str, rows: list[ChatRow]) -> list[ChatRow]:
        """Those of a project for which there is room."""
        taken = session.scalar(select(func.sum(ChatRow.size)).where(ChatRow.project_id == project_id)) or 0
        mine, kept = [row for row in rows if row.project_id == project_id], list[ChatRow]()
        for row in mine:
            if taken + row.size <= self._project_chat_bytes:
                taken += row.size
                kept.append(row)
        if len(kept) < len(mine):
            self._full[project_id] = time.monotonic()
            log.warning(
                "%d chats of %s are not kept: its chats take %d of server.project_chat_bytes = %d",
                len(mine) - len(kept), project_id, taken, self._project_chat_bytes,
            )  # fmt: skip
        else:
            self._full.pop(project_id, None)
        return kept


def _row_of(chat: _Chat) -> ChatRow | None:
    """None for a stream that did not come to its end, or an answer of another shape than the API's."""
    body = chat.body
    try:
        answer = streamed_answer(chat.sent, chat.usage) if body.get("stream") else whole_answer(chat.sent)
        if answer is None:
            return None
        return ChatRow(
            id=str(answer.get("id") or new_id("chatcmpl-")),
            project_id=chat.caller.project_id,
            key_id=chat.caller.key_id,
            created_at=chat.ended_at,
            model=str(answer.get("model") or chat.model),
            labels=body.get("metadata") or {},
            request={key: value for key, value in body.items() if key not in ("metadata", "store")},
            answer=answer,
            size=chat.size,
            prompt=None if chat.prompt is None else dict(chat.prompt),
        )
    except Exception as error:  # one odd chat holds up no other
        log.error("a chat could not be kept", exc_info=error)
        return None


def _prompt_of(prepared: "Prepared") -> dict[str, Any] | None:
    """The messages as the model saw them, where these are others than the client's, and of which documents: what is
    made of the chat later is for those who may see them."""
    messages = prepared.body.get("messages")
    if messages == prepared.question.body.get("messages"):
        return None
    documents = sorted({(hit.collection, hit.document_id) for hit in prepared.hits})
    return {"messages": messages, "documents": documents, **({"refusal": prepared.refusal} if documents else {})}


def _size_of(value: Any) -> int:
    return characters_of(value, enough=LARGEST_CHAT_CHARACTERS)


def _refuse_metadata(value: Any) -> None:
    """Raises: InvalidInputError."""
    try:
        if value is not None:
            METADATA.validate_python(value)
    except ValidationError as error:
        raise InvalidInputError(f"metadata: {error.errors()[0]['msg']}", param="metadata") from None
