"""Where a training file's rows are from: who may see the passages in them, wherever the file goes.

A file that is written here with retrieved passages leaves our hands: it is copied, shuffled, mixed with others,
cut, and comes back as an upload. Each question with its passages is remembered by a hash, and with it who may see
every one of those. A file that holds such a question is for them alone, and so is what is trained from it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from local_llm.json_lines import LineError, numbered_lines, parse_line
from local_llm.permissions import Allow, shared
from local_llm.prompts import text_of
from local_llm.state import RestrictedRow, State

ROWS_AT_ONCE = 500

# What holds messages in a row for supervised training, and in one of preferences.
_LISTS = ("messages", "preferred_output", "non_preferred_output")


def fingerprint(text: str) -> str:
    """Of a message: that with the passages. Whatever else is changed in its row, it is known by this; white space
    does not count."""
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "surrogatepass")).hexdigest()


def remember(state: State, project_id: str, audiences: Mapping[str, Allow]) -> None:
    """From now on a file that holds a message of one of these fingerprints is for its audience. None: for everyone
    in the project again, as the documents of its passages are now."""
    with state.session() as session:
        opened = [sha256 for sha256, allow in audiences.items() if allow is None]
        for some in _some_at_once(opened):
            session.execute(
                delete(RestrictedRow).where(RestrictedRow.project_id == project_id, RestrictedRow.sha256.in_(some))
            )
        restricted = {sha256: sorted(allow) for sha256, allow in audiences.items() if allow is not None}
        insert = state.upsert(RestrictedRow)
        insert = insert.on_conflict_do_update(
            index_elements=["project_id", "sha256"], set_={"allow": insert.excluded.allow}
        )
        for some in _some_at_once(restricted):
            rows = [{"project_id": project_id, "sha256": one, "allow": restricted[one]} for one in some]
            session.execute(insert, rows)


def audience_of_file(state: State, project_id: str, path: Path) -> Allow:
    """Who may see all that stands in a training file. None: nothing in it is restricted, as far as is known."""
    with state.reading() as session:
        held = select(RestrictedRow.sha256).where(RestrictedRow.project_id == project_id).limit(1)
        if session.scalars(held).first() is None:
            return None
        allows: set[tuple[str, ...]] = set()
        for some in _some_at_once(_fingerprints(path)):
            allows.update(tuple(allow) for allow in _known(session, project_id, set(some)))
    return shared(*allows)


def _some_at_once(fingerprints: Iterable[str]) -> Iterator[list[str]]:
    left = iter(fingerprints)
    while some := list(islice(left, ROWS_AT_ONCE)):
        yield some


def _known(session: Session, project_id: str, fingerprints: set[str]) -> Iterable[list[str]]:
    query = select(RestrictedRow.allow).where(
        RestrictedRow.project_id == project_id, RestrictedRow.sha256.in_(fingerprints)
    )
    return session.scalars(query)


def _fingerprints(path: Path) -> Iterator[str]:
    """Of every message. Lines that cannot be read are none of ours, and no training file has them."""
    with path.open("rb") as handle:
        for _, line in numbered_lines(handle):
            try:
                row = parse_line(line) if line is None or line.strip() else None
            except LineError:
                continue
            yield from (fingerprint(text) for text in _texts(row))


def _texts(row: Any) -> Iterator[str]:
    if not isinstance(row, dict):
        return
    for name in _LISTS:
        messages = row.get(name)
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, dict):
                yield text_of(message.get("content"))
    yield from _texts(row.get("input"))
