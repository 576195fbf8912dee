"""A decision with all that it rests on, and all that follows from it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from local_llm.decision.evidence import Evidence
from local_llm.decision.flips import Flip, flips
from local_llm.decision.gates import Gate, Way, open_ways
from local_llm.decision.latencies import Latency
from local_llm.decision.next_steps import NextStep, next_steps
from local_llm.decision.questions import QUESTIONS, Answers
from local_llm.decision.settling import Contradiction
from local_llm.decision.tree import Decision, decide


@dataclass(frozen=True)
class Report:
    """`latencies`: what was measured on GPUs, a strategy each; a conflict is told with them."""

    decision: Decision
    answers: Answers
    gates: tuple[Gate, ...]
    evidence: tuple[Evidence, ...]
    contradictions: tuple[Contradiction, ...]
    latencies: tuple[Latency, ...]
    flips: tuple[Flip, ...]
    next_steps: tuple[NextStep, ...]

    @property
    def open_ways(self) -> tuple[Way, ...]:
        return open_ways(self.gates)

    def to_json(self) -> dict[str, Any]:
        decision = self.decision
        return {
            "strategy": decision.strategy,
            "gates": [asdict(gate) for gate in self.gates],
            "open_ways": list(self.open_ways),
            "answers": {question: asdict(self.answers.to(question)) for question in QUESTIONS},
            "path": [asdict(step) for step in decision.path],
            "conflict": self._conflict(),
            "contradictions": [asdict(one) for one in self.contradictions],
            "evidence": [asdict(one) for one in self.evidence],
            "flips": [{"changed": dict(flip.changed), "strategy": flip.strategy} for flip in self.flips],
            "next_steps": [asdict(step) for step in self.next_steps],
        }

    def _conflict(self) -> dict[str, Any] | None:
        if self.decision.conflict is None:
            return None
        return {"reason": self.decision.conflict, "measured": [asdict(one) for one in self.latencies]}


def report(
    answers: Answers,
    *,
    gates: tuple[Gate, ...],
    evidence: Sequence[Evidence],
    contradictions: Sequence[Contradiction],
    latencies: Sequence[Latency],
    collection: str | None,
) -> Report:
    """`collection`: the name of one that is there already."""
    decision = decide(answers)
    steps = next_steps(
        decision.strategy,
        collection=collection,
        enough_examples=answers.examples.yes,
        hosted="hosted" in open_ways(gates),
    )
    return Report(
        decision=decision,
        answers=answers,
        gates=gates,
        evidence=tuple(evidence),
        contradictions=tuple(contradictions),
        latencies=tuple(latencies),
        flips=flips(answers),
        next_steps=steps,
    )
