"""Evidence: what a real state database says of the questions, and what it must not say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_llm import ledger
from local_llm.decision.evidence import (
    Box,
    changes_evidence,
    collect,
    examples_evidence,
    gpu_latencies,
    latency_evidence,
)
from local_llm.errors import NotFoundError
from local_llm.files import FINE_TUNE, FileStore
from local_llm.identifiers import new_id, now
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import Collection, LedgerEntry, State

GPU = {"device": "cuda", "name": "NVIDIA H100", "cores": 16, "memory_gib": 128.0}
CPU = {"device": "cpu", "name": "AMD EPYC", "cores": 2, "memory_gib": 8.0}
DAY = 24 * 3600
AT = 20_000 * DAY + 3600

Write = Callable[..., str]


@pytest.fixture
def box(settings: Settings, state: State, admin: Caller) -> Box:
    return Box(settings, state, admin, collection=None, at=AT)


@pytest.fixture
def write(state: State, admin: Caller) -> Write:
    """Writes a row of the ledger, measured on whatever hardware and `days` ago."""

    def write_entry(kind: str, facts: dict[str, Any], hardware: dict[str, Any] = GPU, days: float = 0) -> str:
        entry = LedgerEntry(
            id=new_id("led_"),
            project_id=admin.project_id,
            kind=kind,
            created_at=int(AT - days * DAY),
            hardware=hardware,
            facts=facts,
        )
        with state.session() as session:
            session.add(entry)
        return entry.id

    return write_entry


def collection(state: State, admin: Caller, name: str) -> str:
    identifier = new_id("vs_")
    with state.session() as session:
        session.add(
            Collection(
                id=identifier,
                project_id=admin.project_id,
                name=name,
                encoder="bge",
                encoder_fingerprint="0",
                created_at=0,
                last_active_at=0,
            )
        )
    return identifier


def evaluation(strategy: str = "rag", p95: float | None = 0.3, **more: Any) -> dict[str, Any]:
    return {
        "questions": 40,
        "profiles": {f"help-{strategy}": {"strategy": strategy, "total_seconds": {"p95": p95}, **more}},
    }


def upload(box: Box, tmp_path: Path, name: str, lines: int) -> str:
    path = tmp_path / name
    path.write_text('{"messages": []}\n' * lines + "\n")
    row = FileStore(box.settings, box.state).add(
        path, filename=name, purpose=FINE_TUNE, project_id=box.caller.project_id
    )
    return row.id


def test_an_empty_box_decides_nothing_and_says_what_to_do(box: Box) -> None:
    found = collect(box)
    assert [one.question for one in found] == ["examples", "changes", "low_latency"]
    assert [one.answer for one in found] == [None] * 3
    assert [one.measured for one in found] == [None] * 3
    assert "no training file was uploaded" in found[0].figure
    assert "no collection yet" in found[1].figure
    assert "no evaluation of rag yet" in found[2].figure
    assert all(one.mend for one in found)


@pytest.mark.parametrize(("lines", "enough"), [(99, False), (100, True)])
def test_a_hundred_uploaded_examples_are_enough(box: Box, tmp_path: Path, lines: int, enough: bool) -> None:
    upload(box, tmp_path, "small.jsonl", 12)
    largest = upload(box, tmp_path, "large.jsonl", lines)
    found = examples_evidence(box)
    assert (found.answer, found.measured, found.entry) == (enough, lines, largest)
    assert f"{lines} examples in large.jsonl, counted and not judged" in found.figure


def test_examples_of_a_training_count_though_its_file_is_gone(box: Box) -> None:
    facts = {"examples": 412, "fine_tuned_model": "ft:tiny:local:support:1"}
    identifier = ledger.record(box.state, box.caller.project_id, "training", facts)
    found = examples_evidence(box)
    assert (found.answer, found.measured, found.entry) == (True, 412, identifier)


def test_pairs_that_a_retriever_learned_from_are_no_examples(box: Box, write: Write) -> None:
    write("training", {"examples": 5000})
    assert examples_evidence(box).answer is None


@pytest.mark.parametrize(
    ("days_ago", "often", "figure"),
    [
        ([28, 21, 14, 7, 0], True, "4 of 28 days, one in 7.0 days"),
        ([28, 20, 10, 0], False, "3 of 28 days, one in 9.3 days"),
        ([28], False, "0 of 28 days"),
        ([28, 28.01, 28.02], False, "0 of 28 days"),  # the day of the filling
        ([730, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1], True, "12 of 84 days, one in 7.0 days"),  # lately
        ([700, 699, 698, 697], False, "0 of 84 days"),
    ],
)
def test_how_often_documents_came_says_whether_they_change_often(
    box: Box, write: Write, days_ago: list[float], often: bool, figure: str
) -> None:
    mine = collection(box.state, box.caller, "handbook")
    for days in days_ago:
        write("ingestion", {"collection": mine, "documents": 3}, days=days)
    found = changes_evidence(box)
    assert found.answer is often
    assert figure in found.figure


def test_what_was_unchanged_or_elsewhere_is_no_change(box: Box, write: Write) -> None:
    mine, other = (collection(box.state, box.caller, name) for name in ("handbook", "news"))
    write("ingestion", {"collection": mine, "documents": 3}, days=30)
    for days in range(20):
        write("ingestion", {"collection": mine, "documents": 0}, days=days)
        write("ingestion", {"collection": other, "documents": 9}, days=days)
    assert changes_evidence(replace(box, collection="handbook")).answer is False
    assert changes_evidence(replace(box, collection=mine)).answer is False
    assert changes_evidence(replace(box, collection="news")).answer is True
    unnamed = changes_evidence(box)
    assert unnamed.answer is None
    assert "2 collections, and none was named" in unnamed.figure


def test_a_young_collection_does_not_show_yet_how_often_it_changes(box: Box, write: Write) -> None:
    mine = collection(box.state, box.caller, "handbook")
    for days in (13, 6, 5, 4):
        write("ingestion", {"collection": mine, "documents": 3}, days=days)
    found = changes_evidence(box)
    assert found.answer is None
    assert "first filled 13 days ago" in found.figure
    assert "--no-changes" in str(found.mend)


def test_an_unknown_collection_is_an_error(box: Box) -> None:
    with pytest.raises(NotFoundError, match="no collection 'nowhere'"):
        collect(replace(box, collection="nowhere"))


@pytest.mark.parametrize(("p95", "slow"), [(0.5, False), (0.501, True), (2.0, True)])
def test_rag_on_a_gpu_is_judged_by_its_p95(box: Box, write: Write, p95: float, slow: bool) -> None:
    entry = write("evaluation", evaluation(p95=p95))
    found = latency_evidence(box)
    assert (found.answer, found.measured, found.entry) == (slow, p95 * 1000, entry)
    assert found.hardware == "NVIDIA H100"
    assert f"{p95 * 1000:,.0f} ms at p95 over 40 questions on NVIDIA H100" in found.figure


def test_what_was_asked_at_once_is_told(box: Box, write: Write) -> None:
    write("evaluation", evaluation(p95=0.3) | {"concurrency": 4})
    assert "300 ms at p95 over 40 questions, 4 at once, on NVIDIA H100" in latency_evidence(box).figure


def test_a_processors_figure_decides_nothing(box: Box, write: Write) -> None:
    write("evaluation", evaluation(p95=9.0), CPU)
    found = latency_evidence(box)
    assert (found.answer, found.measured) == (None, None)
    assert (
        "9,000 ms at p95 over 40 questions on AMD EPYC: a processor's figure says nothing of a GPU" in found.figure
    )
    assert gpu_latencies(box) == []


def test_a_newer_figure_of_a_processor_does_not_hide_an_older_one_of_a_gpu(box: Box, write: Write) -> None:
    entry = write("evaluation", evaluation(p95=0.3), days=2)
    write("evaluation", evaluation(p95=9.0), CPU)
    assert latency_evidence(box).entry == entry


def test_what_the_ledger_measures_here_bears_this_hardware(box: Box) -> None:
    ledger.record(box.state, box.caller.project_id, "evaluation", evaluation(p95=0.3))
    (entry,) = ledger.entries(box.state, box.caller.project_id, "evaluation")
    assert latency_evidence(box).answer is (False if entry.hardware["device"] == "cuda" else None)
    assert entry.created_at <= now()


@pytest.mark.parametrize("more", [{"questions": 1}, {"questions": 40, "failed": 39}])
def test_one_question_has_no_p95(box: Box, write: Write, more: dict[str, Any]) -> None:
    write("evaluation", evaluation(p95=0.3, **more))
    found = latency_evidence(box)
    assert (found.answer, found.measured) == (None, None)
    assert "over 1 question on" in found.figure
    assert "a p95 needs 20 questions" in found.figure


def test_a_gpu_that_will_not_serve_decides_nothing(box: Box, write: Write) -> None:
    write("evaluation", evaluation(p95=0.3))
    found = latency_evidence(replace(box, gpu=False))
    assert found.answer is None
    assert "there will be no such GPU" in found.figure


def test_of_one_evaluation_the_quickest_rag_counts_and_of_several_the_newest(box: Box, write: Write) -> None:
    write("evaluation", evaluation(p95=0.1), days=3)
    profiles = {
        name: {"strategy": strategy, "total_seconds": {"p95": p95}}
        for name, strategy, p95 in [("a", "rag", 0.9), ("b", "rag", 0.7), ("c", "fine_tuned", 0.2)]
    }
    write("evaluation", {"questions": [{}] * 30, "profiles": profiles}, days=1)
    assert latency_evidence(box).measured == 700
    assert {one.strategy: one.profile for one in gpu_latencies(box)} == {"rag": "b", "fine_tuned": "c"}


def test_answers_from_another_collection_do_not_count(box: Box, write: Write) -> None:
    mine, other = (collection(box.state, box.caller, name) for name in ("handbook", "news"))
    write("evaluation", evaluation(p95=0.3, collection=mine), days=1)
    write("evaluation", evaluation(p95=0.9, collection=other))
    assert latency_evidence(replace(box, collection="handbook")).measured == 300
    assert latency_evidence(replace(box, collection="news")).measured == 900


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"profiles": None},
        {"profiles": {"a": "rag"}},
        {"profiles": {"a": {"strategy": "rag"}}},
        {"profiles": {"a": {"strategy": "rag", "total_seconds": {"p95": None}}}},
        {"profiles": {"a": {"total_seconds": {"p95": 0.3}}}},
    ],
)
def test_an_evaluation_of_another_shape_says_nothing(box: Box, write: Write, facts: dict[str, Any]) -> None:
    write("evaluation", facts)
    assert "no evaluation of rag yet" in latency_evidence(box).figure


def test_other_projects_are_not_looked_at(box: Box, write: Write, tmp_path: Path) -> None:
    write("evaluation", evaluation())
    upload(box, tmp_path, "large.jsonl", 200)
    elsewhere = replace(box, caller=Caller("proj_other", "owner"))
    assert [one.answer for one in collect(elsewhere)] == [None] * 3
