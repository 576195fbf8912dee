"""The figures as a table, and as one JSON object."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from local_llm.bootstrap import Interval
from local_llm.cli.output import emit_table
from local_llm.relevance import Measures, differences, means
from quality_bench.retriever.data import TestSet

Facts = dict[str, Any]
UNTUNED = "untuned"
HEADINGS = {"ndcg_10": "nDCG@10", "accuracy_1": "accuracy@1", "recall_5": "recall@5", "mrr_10": "MRR@10"}
Found = Mapping[str, Sequence[Measures]]
"""Measures of each question of one set, by the model's name."""


def facts_of(test: TestSet, found: Found) -> Facts:
    """Means of each model, and how each differs from the untuned one and from those before it."""
    groups = [one.group for one in test.questions]
    names = list(found)
    changes = {
        f"{name} - {other}": {measure: asdict(one) for measure, one in _change(found, name, other, groups).items()}
        for at, name in enumerate(names)
        for other in names[:at]
    }
    return {
        "documents": len(test.ids),
        "questions": len(test.questions),
        "groups": len(set(groups)),
        "means": {name: asdict(means(measures)) for name, measures in found.items()},
        "changes": changes,
    }


def _change(found: Found, name: str, other: str, groups: Sequence[str]) -> dict[str, Interval]:
    return differences(found[name], found[other], groups)


def print_tables(sets: Mapping[str, Facts], trained: Mapping[str, Facts]) -> None:
    for name, facts in sets.items():
        print(
            f"\n{name}: {facts['questions']} questions ({facts['groups']} groups), {facts['documents']} documents"
        )
        emit_table(_rows(facts, trained), ["model", *HEADINGS.values(), "seconds"], as_json=False, empty="")
        changes = [
            {"change": change, **{HEADINGS[measure]: _shown(one) for measure, one in measures.items()}}
            for change, measures in facts["changes"].items()
        ]
        if changes:
            print()
            emit_table(changes, ["change", *HEADINGS.values()], as_json=False, empty="")


def _rows(facts: Facts, trained: Mapping[str, Facts]) -> list[Facts]:
    return [
        {
            "model": name,
            **{HEADINGS[measure]: f"{value:.4f}" for measure, value in values.items()},
            "seconds": f"{trained[name]['seconds']:.0f}" if name in trained else "-",
        }
        for name, values in facts["means"].items()
    ]


def _shown(one: Facts) -> str:
    return f"{one['mean']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"
