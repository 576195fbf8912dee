"""One answer to one question: its measures, and whether it is accepted."""

from dataclasses import dataclass, field
from typing import Any

from local_llm import answer_measures
from local_llm.evaluation import citations_score
from local_llm.evaluation.answers import Answer
from local_llm.evaluation.fingerprint import canonical
from local_llm.evaluation.question_set import Question
from local_llm.evaluation.rules import Rules, is_json
from local_llm.json_lines import LineError, parse_json
from local_llm.prompts import REFUSAL, is_refusal

_TEXT_MEASURES = {
    "exact_match": answer_measures.exact_match,
    "contains": answer_measures.containment,
    "f1": answer_measures.f1,
    "rouge_l": answer_measures.rouge_l,
}
# Of these, less is better.
LOWER_IS_BETTER = frozenset({"refused_wrongly", "ttft_seconds", "total_seconds"})


@dataclass(frozen=True)
class Score:
    """`measures`: those that apply to the question; `reasons`: why the answer is not accepted."""

    accepted: bool
    measures: dict[str, float]
    reasons: tuple[str, ...] = field(default=())


def score(
    question: Question, answer: Answer, rules: Rules, judgement: int | None = None, *, judged: bool = False
) -> Score:
    """An answer that failed counts as an empty one. `judgement`: 1 to 5, where a judge was asked and understood;
    `judged`: one was asked, so that an answer that it said nothing of is not accepted for want of a judgement."""
    text = answer_measures.without_markers(answer.text).strip()
    refused = not answer.failed and (bool(answer.refused) or is_refusal(text, rules.refusal or REFUSAL))
    if not question.answerable:
        why: tuple[str, ...] = () if refused else (answer.error or "answered what it could not know",)
        return Score(refused, {"refused_rightly": float(refused)}, why)
    measures = _measures(question, answer, text, rules)
    measures["refused_wrongly"] = float(refused)
    if judgement is not None:
        measures["judge"] = float(judgement)
    if answer.error is not None:
        return Score(False, measures, (f"failed: {answer.error}",))
    if refused:
        return Score(False, measures, ("refused",))
    reasons = (*_not_right(measures, rules, judged=judged), *_missing(measures, rules, text))
    return Score(not reasons, measures, reasons)


def _measures(question: Question, answer: Answer, text: str, rules: Rules) -> dict[str, float]:
    found: dict[str, float] = {}
    if question.answers:
        for name, measure in _TEXT_MEASURES.items():
            found[name] = max(measure(text, right) for right in question.answers)
    found |= _json_measures(question, answer.text.strip(), text, rules)
    if rules.style.is_given:
        found["style"] = float(not rules.style.broken(text))
    if question.evidence:
        exact = citations_score.precision(answer.citations, question.evidence)
        if exact is not None:
            found["citation_precision"] = exact
        found["citation_recall"] = citations_score.recall(answer.citations, question.evidence)
    return found


def _json_measures(question: Question, whole: str, text: str, rules: Rules) -> dict[str, float]:
    """`whole`: with what may be markers: in JSON `[1]` is a list."""
    rights = [_json(one) for one in question.answers if is_json(one)]
    found: dict[str, float] = {}
    if question.schema is None and not rules.must.valid_json and not (rules.right.json_equal and rights):
        return found
    value = _json(whole)
    if value is _NO_JSON:
        value = _json(text)
    found["json_valid"] = float(value is not _NO_JSON)
    if question.schema is not None:
        found["schema_match"] = float(value is not _NO_JSON and _fits(value, question.schema))
    if rights:
        same = value is not _NO_JSON and canonical(_whole(value)) in {canonical(_whole(right)) for right in rights}
        found["json_equal"] = float(same)
    return found


_NO_JSON = object()


def _json(text: str) -> Any:
    try:
        return parse_json(text)
    except LineError:
        return _NO_JSON


def _whole(value: Any) -> Any:
    """With 1.0 as 1: JSON knows one kind of number."""
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fits(value: Any, schema: Any) -> bool:
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # A registry of its own: the default one would fetch what `$ref` names.
    validator = validator_for(schema)(schema, registry=Registry())
    try:
        return bool(validator.is_valid(value))
    except (Unresolvable, RecursionError):  # a `$ref` to nowhere, or to itself
        return False


def _not_right(measures: dict[str, float], rules: Rules, *, judged: bool) -> list[str]:
    """Empty if one of the measures is reached, or none is asked for that applies."""
    thresholds = rules.right.thresholds()
    wanted = {name: least for name, least in thresholds.items() if name in measures}
    if any(measures[name] >= least for name, least in wanted.items()):
        return []
    told = [f"{name} {measures[name]:.2f} < {least:g}" for name, least in wanted.items()]
    if judged and "judge" in thresholds and "judge" not in measures:
        told.append("no judgement that could be read")
    return [f"not right: {', '.join(told)}"] if told else []


def _missing(measures: dict[str, float], rules: Rules, text: str) -> list[str]:
    must, missing = rules.must, list[str]()
    if must.valid_json and measures["json_valid"] == 0:
        missing.append("no JSON")
    if must.matches_schema and measures.get("schema_match") == 0:
        missing.append("JSON that does not match the schema" if measures["json_valid"] else "no JSON")
    if must.cites_evidence and measures.get("citation_recall") == 0:
        missing.append("cites no evidence")
    if must.keeps_style:
        missing += rules.style.broken(text)
    return missing
