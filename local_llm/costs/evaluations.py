"""What evaluations found, read for cost: from the ledger, or from a file that goes before it.

Read of an entry of kind `evaluation` (local_llm/evaluation/report_json.py writes it):

    facts["profiles"][NAME]["strategy"]           one of the four, `endpoint` or `recorded`
    facts["profiles"][NAME]["model"]              what answered
    facts["profiles"][NAME]["questions"], ["accepted"]
    facts["profiles"][NAME]["total_seconds"]      p50 and p95, from question to whole answer
    facts["profiles"][NAME]["input_tokens"], ["output_tokens"]    of all answers
    facts["profiles"][NAME]["usd_per_question"], ["usd_per_accepted_answer"]
    facts["questions_sha256"], facts["rules_sha256"]              what was asked, and what was accepted
    facts["engine"]["gpus"], ["elsewhere"]        what answered for this box
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from local_llm.errors import InvalidInputError
from local_llm.profiles import STRATEGIES, Strategy
from local_llm.section import Section
from local_llm.state import LedgerEntry

LOCAL = "local"
FINE_TUNED = "ft:"  # how names of fine-tuned models begin, hosted ones too

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class AnswerEvidence(Section):
    """What an evaluation found of one strategy, here (`where` is `local`) or of a hosted model (its name).

    `asked`: which questions by which rules; None: whoever handed it on answers for it. Tokens and dollars are a
    question's, as it was asked then. `supposed`: what of it nobody measured.
    """

    strategy: Strategy
    where: str = LOCAL
    accepted_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    latency_p50_seconds: Seconds | None = None
    latency_p95_seconds: Seconds | None = None
    input_tokens: Amount | None = None
    output_tokens: Amount | None = None
    usd_per_question: Amount | None = None
    usd_per_accepted_answer: Amount | None = None
    questions: Annotated[int, Field(gt=0)] | None = None
    profile: str | None = None
    hardware: str | None = None
    asked: str | None = None
    supposed: str | None = None
    run_id: str = Field(min_length=1)

    def is_comparable(self, other: "AnswerEvidence") -> bool:
        """Whether both were asked the same and judged by the same rules."""
        return None in (self.asked, other.asked) or self.asked == other.asked


def local_answers(entry: LedgerEntry) -> list[AnswerEvidence]:
    """Of this box, one a strategy: of several profiles the one with the most accepted answers."""
    found: dict[str, AnswerEvidence] = {}
    for name, profile in _profiles(entry):
        if profile["strategy"] in STRATEGIES and not _engine(entry).get("elsewhere", False):
            one = _evidence(entry, name, profile, strategy=profile["strategy"], where=LOCAL)
            before = found.get(one.strategy)
            if before is None or (one.accepted_rate or 0) > (before.accepted_rate or 0):
                found[one.strategy] = one
    return list(found.values())


def hosted_answers(entry: LedgerEntry) -> list[AnswerEvidence]:
    """Of other servers' models, by the name that the evaluation gave them and by the one that answered.

    An endpoint is asked without passages. How past answers came about nobody knows: it is supposed to be the same.
    """
    found = []
    for name, profile in _profiles(entry):
        if profile["strategy"] in STRATEGIES:
            continue
        supposed = "past answers, supposed to be made without passages"
        for where in dict.fromkeys((name, profile["model"] or name)):
            one = _evidence(
                entry,
                name,
                profile,
                strategy="fine_tuned" if where.startswith(FINE_TUNED) else "base",
                where=where,
                supposed=supposed if profile["strategy"] == "recorded" else None,
            )
            found.append(one)
    return found


def gpus_of(entry: LedgerEntry) -> int:
    """How many worked for the engine."""
    return int(_engine(entry).get("gpus", 1))


def read_answers(path: Path) -> tuple[AnswerEvidence, ...]:
    """A JSON list of what evaluations found.

    Raises: InvalidInputError with everything that is wrong.
    """
    try:
        return TypeAdapter(tuple[AnswerEvidence, ...]).validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}", hint="check --evidence") from None
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors())
        raise InvalidInputError(f"{path}: {reasons}", hint="docs/cost.md shows a row") from None


def _profiles(entry: LedgerEntry) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those that were asked anything."""
    for name, profile in entry.facts["profiles"].items():
        if profile["questions"]:
            yield name, profile


def _engine(entry: LedgerEntry) -> dict[str, Any]:
    return entry.facts.get("engine", {})


def _evidence(
    entry: LedgerEntry,
    name: str,
    profile: dict[str, Any],
    *,
    strategy: Strategy,
    where: str,
    supposed: str | None = None,
) -> AnswerEvidence:
    questions, seconds = profile["questions"], profile["total_seconds"]
    return AnswerEvidence(
        strategy=strategy,
        where=where,
        accepted_rate=profile["accepted"] / questions,
        latency_p50_seconds=seconds["p50"] or None,
        latency_p95_seconds=seconds["p95"] or None,
        input_tokens=_each(profile["input_tokens"], questions),
        output_tokens=_each(profile["output_tokens"], questions),
        usd_per_question=profile["usd_per_question"],
        usd_per_accepted_answer=profile["usd_per_accepted_answer"],
        questions=questions,
        profile=name,
        hardware=entry.hardware["name"],
        asked=f"{entry.facts['questions_sha256']} {entry.facts['rules_sha256']}",
        supposed=supposed,
        run_id=entry.id,
    )


def _each(total: int | None, questions: int) -> float | None:
    return None if total is None else total / questions
