"""The ledger: what was measured here, and on what hardware. Cost, evaluation and decision read it."""

from typing import Any, Literal

from sqlalchemy import select

from local_llm.hardware import this_hardware
from local_llm.identifiers import new_id, now
from local_llm.state import LedgerEntry, State

LedgerKind = Literal["training", "ingestion", "answers", "ranking", "retriever"]


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


def latest(state: State, project_id: str, kind: LedgerKind) -> LedgerEntry | None:
    with state.reading() as session:
        query = (
            select(LedgerEntry)
            .where(LedgerEntry.project_id == project_id, LedgerEntry.kind == kind)
            .order_by(LedgerEntry.created_at.desc())
        )
        return session.scalars(query).first()
