"""What keys use: counted in memory as it is used, added to rows by the minute within a second."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import Literal

from sqlalchemy import func, select

from local_llm.identifiers import now
from local_llm.permissions import Caller
from local_llm.state import State, UsageRow
from local_llm.trailing import still_wanted

MINUTE_SECONDS = 60
DAY_SECONDS = 24 * 3600

# Chats, responses and bare completions are `completions`; those of /v1/batches are `batch`. A search in a
# collection is a `file_search`, and its "model" is the collection's id.
UsageKind = Literal["completions", "batch", "embeddings", "file_search"]


@dataclass
class Counts:
    """`cached_tokens` are among the input tokens; `passages` were retrieved."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    passages: int = 0

    def add(self, other: "Counts") -> None:
        self.requests += other.requests
        self.input_tokens += other.input_tokens
        self.cached_tokens += other.cached_tokens
        self.output_tokens += other.output_tokens
        self.passages += other.passages

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True)
class _Place:
    """Whose row it is."""

    minute: int
    project_id: str
    key_id: str
    model: str
    kind: UsageKind


@dataclass
class _Today:
    """Tokens of a key since midnight UTC: as the database had them, and what is not in there yet."""

    day: int
    stored: int
    waiting: int = 0


class Usage:
    """Safe to call from any thread; count() and tokens_today() touch memory only, but for a key's first today."""

    def __init__(self, state: State, clock: Callable[[], int] = now):
        self._state = state
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[_Place, Counts] = {}
        self._writing: dict[_Place, Counts] = {}  # on their way; in the database or not
        self._today: dict[str, _Today] = {}

    def count(
        self,
        caller: Caller,
        model: str,
        kind: UsageKind,
        *,
        requests: int = 1,
        input_tokens: int = 0,
        cached_tokens: int = 0,
        output_tokens: int = 0,
        passages: int = 0,
    ) -> None:
        """Adds a request and what it used. `requests=0` adds to one that was counted before."""
        moment, key_id = self._clock(), caller.key_id or ""
        used = Counts(requests, input_tokens, cached_tokens, output_tokens, passages)
        place = _Place(moment - moment % MINUTE_SECONDS, caller.project_id, key_id, model, kind)
        with self._lock:
            self._waiting.setdefault(place, Counts()).add(used)
            today = self._today.get(key_id)
            if today is not None:
                today.waiting += used.tokens

    def tokens_today(self, key_id: str) -> int:
        """Input and output tokens of a key since midnight UTC, other gateways' among them as of a second ago."""
        day = self._clock() // DAY_SECONDS
        with self._lock:
            today = self._today.get(key_id)
            if today is not None and today.day == day:
                return today.stored + today.waiting
        return self._first_today(key_id, day)

    def flush(self) -> None:
        """Writes what waits, in one transaction. Raises: SQLAlchemyError, StateUnavailableError: then
        everything waits on."""
        with self._lock:
            self._writing, self._waiting = self._waiting, {}
        if self._writing:
            try:
                self._write(self._writing)
            except BaseException:
                with self._lock:
                    for place, counts in self._writing.items():
                        self._waiting.setdefault(place, Counts()).add(counts)
                    self._writing = {}
                raise
        self._read_again()

    def _write(self, writing: Mapping[_Place, Counts]) -> None:
        names = [field.name for field in fields(Counts)]
        rows = [{**vars(place), **vars(counts)} for place, counts in writing.items()]
        insert = self._state.upsert(UsageRow)
        added = {name: getattr(UsageRow, name) + getattr(insert.excluded, name) for name in names}
        keys = [field.name for field in fields(_Place)]
        with self._state.session() as session:
            rows = still_wanted(session, "usage", rows, itemgetter("project_id"))
            if rows:
                session.execute(insert.on_conflict_do_update(index_elements=keys, set_=added), rows)

    def _read_again(self) -> None:
        """What the keys that are asked about used today by the database: other processes may count them too."""
        day = self._clock() // DAY_SECONDS
        with self._lock:
            asked = [key_id for key_id, today in self._today.items() if today.day == day]
        stored = {key_id: self._stored(key_id, day) for key_id in asked}
        with self._lock:
            self._writing = {}
            for key_id, tokens in stored.items():
                self._today[key_id] = _Today(day, tokens, self._waiting_of(key_id, day))

    def _first_today(self, key_id: str, day: int) -> int:
        stored = self._stored(key_id, day)
        with self._lock:
            today = self._today[key_id] = _Today(day, stored, self._waiting_of(key_id, day))
            return today.stored + today.waiting

    def _waiting_of(self, key_id: str, day: int) -> int:
        """Counts of a key that the database may not have yet; call it with the lock."""
        return sum(
            counts.tokens
            for rows in (self._waiting, self._writing)
            for place, counts in rows.items()
            if place.key_id == key_id and place.minute // DAY_SECONDS == day
        )

    def _stored(self, key_id: str, day: int) -> int:
        tokens = func.coalesce(func.sum(UsageRow.input_tokens + UsageRow.output_tokens), 0)
        query = select(tokens).where(UsageRow.key_id == key_id, UsageRow.minute >= day * DAY_SECONDS)
        with self._state.reading() as session:
            return session.scalar(query) or 0
