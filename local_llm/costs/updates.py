"""What a changed fact took until it was answered, read for cost from ledger entries of kind `freshness`.

Read of an entry (local_llm/cli/evaluate_freshness.py writes it):

    facts["profiles"][NAME]["way"]         `re-index` or `retrain`: what made the answer right
    facts["profiles"][NAME]["measured"]    whether the right answer was seen
    facts["profiles"][NAME]["work"]        its seconds, and what was `done` by unit
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from local_llm.costs.units import SECONDS_PER_HOUR
from local_llm.state import LedgerEntry


@dataclass(frozen=True)
class MeasuredReindexing:
    """Of documents that had changed."""

    hours: float
    documents: int
    tokens: int
    run_id: str


@dataclass(frozen=True)
class MeasuredRetraining:
    hours: float
    run_id: str


def reindexing_of(entry: LedgerEntry) -> MeasuredReindexing | None:
    """None: no strategy's answer was made right by it."""
    for work in _works(entry, "re-index"):
        done = work["done"]
        return MeasuredReindexing(work["seconds"] / SECONDS_PER_HOUR, done["documents"], done["tokens"], entry.id)
    return None


def retraining_of(entry: LedgerEntry) -> MeasuredRetraining | None:
    """Of several adapters the one that took longest; None: none was trained until its answer was right."""
    seconds = [work["seconds"] for work in _works(entry, "retrain")]
    return MeasuredRetraining(max(seconds) / SECONDS_PER_HOUR, entry.id) if seconds else None


def _works(entry: LedgerEntry, way: str) -> Iterator[dict[str, Any]]:
    for profile in entry.facts["profiles"].values():
        if profile["measured"] and profile["way"] == way:
            yield profile["work"]
