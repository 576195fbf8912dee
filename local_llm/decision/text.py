"""A decision in words for people."""

from collections.abc import Iterator

from local_llm.decision.evidence import Evidence
from local_llm.decision.flips import Flip
from local_llm.decision.questions import ASKED, NOT_NAMED
from local_llm.decision.report import Report
from local_llm.decision.tree import Step


def as_text(report: Report) -> str:
    parts = [
        [f"strategy: {report.decision.strategy}"],
        _part("gates", [gate.means for gate in report.gates] + [f"open: {', '.join(report.open_ways)}"]),
        _part("path", [line for step in report.decision.path for line in _step(step)]),
        _part("conflict", list(_conflict(report))),
        _part("measured", [_evidence(one) for one in report.evidence]),
        _part("told, though measured otherwise", list(_contradictions(report))),
        _part("what would flip it", [_flip(flip, report) for flip in report.flips]),
        _part("next", list(_next(report))),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def yes_no(yes: bool) -> str:
    return "yes" if yes else "no"


def _part(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _step(step: Step) -> Iterator[str]:
    yield f"{step.question} {yes_no(step.yes)}"
    if step.why is not None:
        yield f"    {step.why}"
    for ground in step.grounds:
        answer = ground.answer
        because = "" if answer.because == answer.source else f": {answer.because}"
        yield f"    {ASKED[ground.question]} {yes_no(answer.yes)} ({answer.source}{because})"


def _conflict(report: Report) -> Iterator[str]:
    if report.decision.conflict is None:
        return
    yield report.decision.conflict
    for one in report.latencies:
        yield f"measured: {one}"
    if not report.latencies:
        yield "nothing was measured on a GPU that tells what this costs in milliseconds: local-llm evaluate"


def _evidence(one: Evidence) -> str:
    if one.answer is None:
        return f"{ASKED[one.question]} not measured: {one.figure}. Set or run: {one.mend}"
    entry = f" [{one.entry}]" if one.entry else ""
    otherwise = f". Set: {one.mend}" if one.mend else ""
    return f"{ASKED[one.question]} {yes_no(one.answer)}: {one.figure}{entry}{otherwise}"


def _contradictions(report: Report) -> Iterator[str]:
    for one in report.contradictions:
        yield f"{ASKED[one.question]} {yes_no(one.told)} was told and holds; measured: {one.figure}"


def _flip(flip: Flip, report: Report) -> str:
    """With what speaks against it now, where that is more than a word of the user's."""
    now = [report.answers.to(question) for question, _ in flip.changed]
    known = [answer.because for answer in now if answer.because not in ("told", NOT_NAMED.because)]
    return f"{flip} (now: {'; '.join(known)})" if known else str(flip)


def _next(report: Report) -> Iterator[str]:
    for step in report.next_steps:
        yield f"# {step.why}"
        yield step.command
