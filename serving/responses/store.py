"""Responses that are kept: for whoever made them, and for the admins of all of the project. Anybody else gets 404.

They may hold what not everybody in the project may read, and stay as they were said when permissions change later.
"""

import logging
import time
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from sqlalchemy import Select, delete, func, literal, select, update
from sqlalchemy.orm import Session

from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.identifiers import now
from local_llm.permissions import Caller
from local_llm.state import ResponseRow, State
from serving.sizes import characters_of

DAY_SECONDS = 24 * 3600
# A conversation is read back turn by turn, and no model reads one of so many.
MOST_TURNS = 1000
# Nor one of so much text. Images are most of what there may be.
LONGEST_CONVERSATION_CHARACTERS = 32 << 20
# So long what a project was seen to take is taken to be so, but for what we add.
TAKEN_SECONDS = 60.0

Json = dict[str, Any]

log = logging.getLogger("local_llm.gateway")


class PreviousNotFoundError(NotFoundError):
    code = "previous_response_not_found"


@dataclass(frozen=True)
class Conversation:
    """What was said up to a response, oldest first, and the ids of the responses that make it up."""

    ids: tuple[str, ...] = ()
    items: tuple[Json, ...] = ()


@dataclass
class _Taken:
    """By the responses of a project, in characters."""

    size: int
    seen_at: float


class ResponseStore:
    """Blocks: call it from a thread. `days`: how long after their last use responses are kept; 0: for ever."""

    def __init__(self, state: State, days: int, project_response_bytes: int):
        self._state = state
        self._days = days
        self._project_response_bytes = project_response_bytes
        self._taken: dict[str, _Taken] = {}
        self._swept = -float(DAY_SECONDS)

    def has_room(self, project_id: str) -> bool:
        """Whether the project may keep more. What is promised to be kept is, though: by then it may be full."""
        taken = self._taken.get(project_id)
        if taken is None or time.monotonic() - taken.seen_at > TAKEN_SECONDS:
            with self._state.reading() as session:
                query = select(func.sum(ResponseRow.size)).where(ResponseRow.project_id == project_id)
                taken = _Taken(session.scalar(query) or 0, time.monotonic())
            if taken.size >= self._project_response_bytes:
                log.warning(
                    "responses of %s are not kept: they take %d of server.project_response_bytes = %d",
                    project_id, taken.size, self._project_response_bytes,
                )  # fmt: skip
            self._taken[project_id] = taken
        return taken.size < self._project_response_bytes

    def keep(self, caller: Caller, response: Json, items: list[Json], conversation: Conversation) -> None:
        """Durable when this returns. The responses that it goes on from are kept as long as it is."""
        self.sweep_daily()
        moment, size = now(), characters_of(response) + characters_of(items)
        with self._state.session() as session:
            session.execute(update(ResponseRow).where(ResponseRow.id.in_(conversation.ids)).values(used_at=moment))
            session.add(
                ResponseRow(
                    id=response["id"],
                    project_id=caller.project_id,
                    key_id=caller.key_id,
                    created_at=response["created_at"],
                    used_at=moment,
                    previous_id=response["previous_response_id"],
                    response=response,
                    input_items=items,
                    size=size,
                )
            )
        if (taken := self._taken.get(caller.project_id)) is not None:
            taken.size += size

    def get(self, caller: Caller, response_id: str) -> ResponseRow:
        """Raises: NotFoundError."""
        with self._state.reading() as session:
            row = self._find(session, caller, response_id)
        if row is None:
            raise _no_response(response_id)
        return row

    def conversation(self, caller: Caller, last_id: str) -> Conversation:
        """All that was said up to and with a response. Raises: PreviousNotFoundError, InvalidInputError."""
        with self._state.reading() as session:
            _refuse_long(session, last_id)
            found = session.scalars(_chain(last_id, ResponseRow))
            rows = list(takewhile(lambda row: self._may_see(caller, row), found))
        if len(rows) > MOST_TURNS:
            raise InvalidInputError(
                f"the conversation before {last_id} has more than {MOST_TURNS} responses",
                hint="begin another one",
                param="previous_response_id",
            )
        missing_id = rows[-1].previous_id if rows else last_id
        if missing_id is not None:
            raise _no_previous(last_id, missing_id)
        rows.reverse()
        items = [item for row in rows for item in (*row.input_items, *row.response["output"])]
        return Conversation(tuple(row.id for row in rows), tuple(items))

    def delete(self, caller: Caller, response_id: str) -> None:
        """Conversations that went on from it end with it. Raises: NotFoundError."""
        with self._state.session() as session:
            row = self._find(session, caller, response_id)
            if row is None:
                raise _no_response(response_id)
            session.delete(row)
        self._taken.pop(caller.project_id, None)

    def sweep_daily(self) -> None:
        """sweep(), if that was not done today."""
        if time.monotonic() - self._swept >= DAY_SECONDS:
            self._swept = time.monotonic()
            self.sweep()

    def sweep(self) -> None:
        """Deletes what has not been used for longer than responses are kept."""
        with self._state.session() as session:
            session.execute(delete(ResponseRow).where(ResponseRow.used_at < self._oldest()))

    def _find(self, session: Session, caller: Caller, response_id: str) -> ResponseRow | None:
        row = session.get(ResponseRow, response_id)
        return row if row is not None and self._may_see(caller, row) else None

    def _may_see(self, caller: Caller, row: ResponseRow) -> bool:
        mine = caller.reads_all or row.key_id == caller.key_id
        return mine and row.project_id == caller.project_id and row.used_at >= self._oldest()

    def _oldest(self) -> int:
        return now() - self._days * DAY_SECONDS if self._days else 0


def _refuse_long(session: Session, last_id: str) -> None:
    """Before any of it is read. Raises: InvalidInputError."""
    size = sum(session.scalars(_chain(last_id, ResponseRow.size)))
    if size > LONGEST_CONVERSATION_CHARACTERS:
        raise InvalidInputError(
            f"the conversation up to {last_id} has {size} characters; expected at most "
            f"{LONGEST_CONVERSATION_CHARACTERS}",
            hint="begin another one",
            param="previous_response_id",
        )


def _chain(last_id: str, what: Any) -> Select[Any]:
    """Of a response and those before it, newest first, one more than are read at most."""
    columns = ResponseRow.id, ResponseRow.previous_id
    chain = select(*columns, literal(0).label("back")).where(ResponseRow.id == last_id).cte(recursive=True)
    before = select(*columns, chain.c.back + 1).where(
        ResponseRow.id == chain.c.previous_id, chain.c.back < MOST_TURNS
    )
    chain = chain.union_all(before)
    return select(what).join(chain, ResponseRow.id == chain.c.id).order_by(chain.c.back)


def _no_response(response_id: str) -> NotFoundError:
    return NotFoundError(f"Response with id '{response_id:.80}' not found.", param="response_id")


def _no_previous(last_id: str, missing_id: str) -> PreviousNotFoundError:
    reason = (
        f"Previous response with id '{last_id:.80}' not found."
        if missing_id == last_id
        else f"the conversation of '{last_id}' goes back to '{missing_id}', which is not there any more"
    )
    return PreviousNotFoundError(
        reason, hint="responses with store=false are not kept: send all that was said", param="previous_response_id"
    )
