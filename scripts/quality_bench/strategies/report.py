"""The figures as tables for people, and as one JSON object."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from local_llm.bootstrap import Interval
from local_llm.cli.output import emit_table
from quality_bench.strategies.adapters import Trained
from quality_bench.strategies.contexts import Contexts
from quality_bench.strategies.data import Question, name_of
from quality_bench.strategies.scoring import MEASURES, Scored, Summary, contrasts, refused, summary
from quality_bench.strategies.settings import CONTRASTS, REFUSALS

Facts = dict[str, Any]


def facts_of(
    found: Mapping[str, Sequence[Scored]], trained: Mapping[str, Trained], contexts: Mapping[str, Contexts]
) -> Facts:
    return {
        "adapters": {
            name: {**asdict(one), "tokens_per_second": one.tokens_per_second} for name, one in trained.items()
        },
        "retrieval": retrieval_facts(asked_of(found), contexts),
        "settings": {name: asdict(summary(scores)) for name, scores in found.items()},
        "contrasts": {
            name: {measure: asdict(one) for measure, one in measures.items()}
            for name, measures in contrasts(found, CONTRASTS).items()
        },
        "refusals": {
            name: {kind: asdict(one) for kind, one in shares.items()}
            for name, shares in refusals_of(found, contexts).items()
        },
    }


def refusals_of(
    found: Mapping[str, Sequence[Scored]], contexts: Mapping[str, Contexts]
) -> dict[str, dict[str, Interval]]:
    """Shares of refusals by setting: `false` where the passages served hold the answer, `right` where none does."""
    shares = {}
    for one, other in REFUSALS:
        answerable = [each for each in found.get(one, ()) if contexts[each.question.id].answerable]
        if answerable and found.get(other):
            shares[one] = {"false": refused(answerable), "right": refused(found[other])}
    return shares


def asked_of(found: Mapping[str, Sequence[Scored]]) -> list[Question]:
    """Every question that any setting answered, once."""
    return list({each.question.id: each.question for scores in found.values() for each in scores}.values())


def retrieval_facts(questions: Sequence[Question], contexts: Mapping[str, Contexts]) -> Facts:
    """Shares of questions: whose gold document is among those of the passages served, with its passage that holds
    the answer, whose such passage the search found at all (else `raft_gold` does not ask them), and for which
    passages without the answer were found."""
    served = [name_of(one.document) in {hit.document for hit in contexts[one.id].served} for one in questions]
    gold = [bool(contexts[one.id].gold) for one in questions]
    absent = [bool(contexts[one.id].absent) for one in questions]
    return {
        "recall_3": round(sum(served) / len(questions), 4),
        "answer_recall_3": round(sum(contexts[one.id].answerable for one in questions) / len(questions), 4),
        "gold_found": round(sum(gold) / len(questions), 4),
        "absent_found": round(sum(absent) / len(questions), 4),
    }


def print_report(
    found: Mapping[str, Sequence[Scored]], trained: Mapping[str, Trained], contexts: Mapping[str, Contexts]
) -> None:
    for name, one in trained.items():
        print(
            f"{name}: {one.rows} rows, {one.tokens} tokens, {one.seconds:.0f} s, {one.tokens_per_second} tokens/s"
            + (f" (from step {one.resumed_at_step})" if one.resumed_at_step else "")
        )
    retrieval = retrieval_facts(asked_of(found), contexts)
    print(
        f"recall@3 of the search {retrieval['recall_3']:.3f}, with the answer {retrieval['answer_recall_3']:.3f}\n"
    )
    summaries = {name: summary(scores) for name, scores in found.items()}
    absent = {name for _, name in REFUSALS}
    rows = [_row(name, one) for name, one in summaries.items() if name not in absent]
    columns = ["setting", *MEASURES, "answers", "cites gold", "median s"]
    emit_table(rows, columns, as_json=False, empty="")
    print("\ndifferences, paired, by whole articles")
    differences = [
        {"setting": name, **{measure: _shown(one, signed=True) for measure, one in measures.items()}}
        for name, measures in contrasts(found, CONTRASTS).items()
    ]
    emit_table(differences, ["setting", *MEASURES], as_json=False, empty="none")
    print("\nrefusals")
    refusals = [
        {"setting": name, **{kind: _shown(one) for kind, one in shares.items()}}
        for name, shares in refusals_of(found, contexts).items()
    ]
    emit_table(refusals, ["setting", "false", "right"], as_json=False, empty="none")


def _row(name: str, one: Summary) -> dict[str, Any]:
    return {
        "setting": name,
        **{measure: _shown(value) for measure, value in one.measures.items()},
        "answers": one.answers,
        "cites gold": f"{one.cites_gold:.3f}",
        "median s": f"{one.median_seconds:.1f}",
    }


def _shown(value: Interval, *, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"
