"""Latencies out of evaluations: the one place that knows how the ledger keeps them.

Read of an entry of kind `evaluation`:

    facts["profiles"][NAME]["strategy"]              base, fine_tuned, rag or hybrid; others are not of this box
    facts["profiles"][NAME]["total_seconds"]["p95"]  from question to whole answer
    facts["profiles"][NAME]["collection"]            optional: where it retrieved from
    facts["profiles"][NAME]["questions"]             optional: how many were asked; else facts["questions"], a
                                                     number or a list
    facts["profiles"][NAME]["failed"]                optional: how many of them got no answer
    facts["concurrency"]                             optional: how many questions were asked at once
    facts["engine"]["elsewhere"]                     optional: the engine was another machine's, and its latency
                                                     says nothing of this hardware
    hardware["device"], hardware["name"]             `cuda` for a GPU
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from local_llm.profiles import STRATEGIES, Strategy
from local_llm.state import LedgerEntry

# Below it the p95 is the slowest answer: 1 / (1 - 0.95).
PERCENTILE_NEEDS = 20
GPU = "cuda"


@dataclass(frozen=True)
class Latency:
    """`questions`: those that got an answer; None: the entry does not say how many were asked."""

    profile: str
    strategy: Strategy
    p95_milliseconds: float
    questions: int | None
    device: str
    hardware: str
    collection: str | None
    concurrency: int | None
    entry: str

    def __str__(self) -> str:
        plural = "" if self.questions == 1 else "s"
        asked = "" if self.questions is None else f" over {self.questions:,} question{plural}"
        at_once = "" if self.concurrency in (None, 1) else f", {self.concurrency} at once,"
        milliseconds = f"{self.p95_milliseconds:,.0f} ms at p95{asked}{at_once}"
        return f"{self.profile} ({self.strategy}) took {milliseconds} on {self.hardware}"

    @property
    def is_of_gpu(self) -> bool:
        return self.device == GPU

    @property
    def is_enough(self) -> bool:
        return self.questions is None or self.questions >= PERCENTILE_NEEDS

    def is_quicker_in_the_same_entry(self, other: "Latency") -> bool:
        return self.entry == other.entry and self.p95_milliseconds < other.p95_milliseconds


def latencies_of(entry: LedgerEntry) -> Iterator[Latency]:
    """What an evaluation says of latency here; entries and profiles of another shape say nothing."""
    engine = entry.facts.get("engine")
    if isinstance(engine, dict) and engine.get("elsewhere"):
        return
    profiles = entry.facts.get("profiles")
    for name, found in profiles.items() if isinstance(profiles, dict) else ():
        p95 = _p95(found)
        if p95 is not None:
            yield Latency(
                profile=name,
                strategy=found["strategy"],
                p95_milliseconds=round(p95 * 1000, 1),
                questions=_answered(found, entry.facts),
                device=str(entry.hardware.get("device")),
                hardware=str(entry.hardware.get("name")),
                collection=found.get("collection"),
                concurrency=entry.facts.get("concurrency"),
                entry=entry.id,
            )


def _p95(profile: Any) -> float | None:
    if not isinstance(profile, dict) or profile.get("strategy") not in STRATEGIES:
        return None
    total = profile.get("total_seconds")
    p95 = total.get("p95") if isinstance(total, dict) else None
    return float(p95) if isinstance(p95, int | float) else None


def _answered(profile: dict[str, Any], facts: dict[str, Any]) -> int | None:
    asked = profile.get("questions", facts.get("questions"))
    if isinstance(asked, list | dict):
        asked = len(asked)
    failed = profile.get("failed", 0)
    return asked - failed if isinstance(asked, int) and isinstance(failed, int) else None
