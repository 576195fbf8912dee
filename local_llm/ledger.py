"""The ledger: what was measured here, and on what hardware. Cost, evaluation and decision read it."""

from typing import Any, Literal

from sqlalchemy import select

from local_llm.hardware import this_hardware
from local_llm.identifiers import new_id, now
from local_llm.state import LedgerEntry, State

LedgerKind = Literal[
    "training",
    "retriever",
    "ingestion",
    "encoding",
    "index_build",
    "reembed",
    "serving",
    "answers",
    "ranking",
    "throughput",
    "evaluation",
    "freshness",
]
HOUR_SECONDS = 3600


def record(state: State, project_id: str, kind: LedgerKind, facts: dict[str, Any]) -> str:
    """Writes one measured fact; returns its id. Keys of `facts` carry their units."""
    identifier = new_id("led_")
    with state.session() as session:
        session.add(
            LedgerEntry(
                id=identifier,
                project_id=project_id,
                kind=kind,
                created_at=now(),
                hardware=this_hardware().to_json(),
                facts=facts,
            )
        )
    return identifier


def add_to_hour(state: State, project_id: str, kind: LedgerKind, moment: int, facts: dict[str, Any]) -> str:
    """Adds to the one entry of the hour that `moment` (seconds since 1970) lies in; returns its id. Any number of
    processes may do so. Numbers are added up, also those of a dictionary in `facts`; anything else takes the place
    of what stood there. Of the first that writes is the hardware."""
    hour = moment - moment % HOUR_SECONDS
    identifier = f"led_{kind}_{hour}_{project_id}"
    empty = {
        "id": identifier,
        "project_id": project_id,
        "kind": kind,
        "created_at": hour,
        "hardware": {},
        "facts": {"hour": hour},
    }
    with state.session() as session:
        session.execute(state.upsert(LedgerEntry).on_conflict_do_nothing(index_elements=["id"]), empty)
        entry = session.get_one(LedgerEntry, identifier, with_for_update=True)
        entry.hardware = entry.hardware or this_hardware().to_json()
        entry.facts = _added(entry.facts, facts)
    return identifier


def entries(state: State, project_id: str, kind: LedgerKind, *, since: int = 0) -> list[LedgerEntry]:
    """Those written at `since` (seconds since 1970) or later, the newest first."""
    with state.reading() as session:
        query = (
            select(LedgerEntry)
            .where(LedgerEntry.project_id == project_id, LedgerEntry.kind == kind, LedgerEntry.created_at >= since)
            .order_by(LedgerEntry.created_at.desc(), LedgerEntry.id)
        )
        return list(session.scalars(query))


def latest(state: State, project_id: str, kind: LedgerKind) -> LedgerEntry | None:
    with state.reading() as session:
        query = (
            select(LedgerEntry)
            .where(LedgerEntry.project_id == project_id, LedgerEntry.kind == kind)
            .order_by(LedgerEntry.created_at.desc())
        )
        return session.scalars(query).first()


def _added(facts: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return {**facts, **{name: _sum(facts.get(name), value) for name, value in more.items()}}


def _sum(before: Any, value: Any) -> Any:
    if isinstance(before, dict) and isinstance(value, dict):
        return _added(before, value)
    if isinstance(before, int | float) and isinstance(value, int | float) and not isinstance(value, bool):
        return round(before + value, 3)
    return before if value is None else value
