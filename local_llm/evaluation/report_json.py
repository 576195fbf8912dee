"""An evaluation as JSON: what is kept of it, what the ledger notes, and what the other reports are written from."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from local_llm import __version__
from local_llm.evaluation.evaluate import Evaluation
from local_llm.evaluation.fingerprint import fingerprint
from local_llm.evaluation.summary import ACCEPTED, Difference, Estimate, Judged, Summary

PERCENTILES = "nearest rank"


def report_of(
    found: Evaluation,
    *,
    run: str,
    project: str,
    created_at: int,
    hardware: dict[str, Any],
    engine: dict[str, Any],
) -> dict:
    """All figures. Keys carry their units; what is not known is null, and `cost_basis` says why.

    `engine`: `gpus`, how many work for it, and `elsewhere`, whether that is another machine's engine.
    """
    plan = found.plan
    rules = plan.rules.model_dump(mode="json")
    return {
        "run": run,
        "project": project,
        "created_at": created_at,
        "version": __version__,
        "hardware": hardware,
        "engine": engine,
        "questions": {
            "file": plan.questions.path.name,
            "sha256": plan.questions.sha256,
            "count": len(plan.questions.questions),
            "seen_in_training": [asdict(one) for one in plan.seen],
        },
        "rules": rules,
        "rules_sha256": fingerprint(rules),
        "concurrency": plan.asking.concurrency,
        "max_tokens": plan.asking.max_tokens,
        "temperature": plan.asking.temperature,
        "machine_usd_per_hour": plan.hour.usd,
        "machine_price_assumed": plan.hour.assumed,
        "judge": plan.judge.name if plan.judge else None,
        "percentiles": PERCENTILES,
        "profiles": {one.name: _profile(one) for one in found.summaries},
        "differences": [_difference(one) for one in found.differences],
    }


def ledger_facts(report: dict[str, Any]) -> dict[str, Any]:
    """What cost and decision read: of each profile means without their intervals."""
    profiles = {}
    for name, one in report["profiles"].items():
        facts = {key: value for key, value in one.items() if key not in ("accepted_share", "quality", "by_tag")}
        profiles[name] = facts | {"quality": {measure: value["mean"] for measure, value in one["quality"].items()}}
    return {
        "run": report["run"],
        "questions_sha256": report["questions"]["sha256"],
        "rules_sha256": report["rules_sha256"],
        "concurrency": report["concurrency"],
        "max_tokens": report["max_tokens"],
        "machine_usd_per_hour": report["machine_usd_per_hour"],
        "machine_price_assumed": report["machine_price_assumed"],
        "engine": report["engine"],
        "profiles": profiles,
    }


def answer_rows(found: Evaluation) -> Iterator[dict[str, Any]]:
    """Each answer with its measures: what a person reads who asks why."""
    for name, rows in found.judged.items():
        for one in rows:
            yield _row(name, one)


def _profile(one: Summary) -> dict[str, Any]:
    return {
        "strategy": one.strategy,
        "model": one.model,
        "collection": one.collection,
        "questions": one.questions,
        "failed": one.failed,
        "from_before": one.from_before,
        "unjudged": one.unjudged,
        ACCEPTED: one.accepted,
        "accepted_share": None if one.accepted_share is None else _estimate(one.accepted_share),
        "quality": {name: _estimate(value) for name, value in one.quality.items()},
        "ttft_seconds": asdict(one.ttft_seconds),
        "total_seconds": asdict(one.total_seconds),
        "input_tokens": one.input_tokens,
        "output_tokens": one.output_tokens,
        "usd_per_question": one.cost.usd_per_question,
        "usd_per_accepted_answer": one.cost.usd_per_accepted_answer,
        "cost_per_question": one.cost.per_question,
        "cost_per_accepted_answer": one.cost.per_accepted,
        "cost_basis": one.cost.basis,
        "by_tag": {tag: {"questions": asked, ACCEPTED: good} for tag, (asked, good) in one.by_tag.items()},
    }


def _estimate(one: Estimate) -> dict[str, Any]:
    return asdict(one)


def _difference(one: Difference) -> dict[str, Any]:
    return {**asdict(one), "better": one.better}


def _row(name: str, one: Judged) -> dict[str, Any]:
    answer = asdict(one.answer)
    del answer["question_sha256"]
    return {
        "profile": name,
        "id": one.question.id,
        "question": one.question.text,
        "accepted": one.score.accepted,
        "reasons": list(one.score.reasons),
        "measures": one.score.measures,
        "answers": list(one.question.answers),
        **answer,
    }
