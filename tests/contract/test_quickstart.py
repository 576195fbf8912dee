"""The quickstart as a newcomer meets it."""

from pathlib import Path

import pytest

from .conftest import QuickstartRun, copy_home, run_quickstart

pytestmark = pytest.mark.engine


def test_it_answers_by_all_four_strategies_and_cites(quickstart: QuickstartRun) -> None:
    result = quickstart.result
    assert set(result) == {"answers", "citations", "fine_tuned_model", "timings_seconds"}
    assert list(result["answers"]) == ["base", "fine_tuned", "rag", "hybrid"]
    assert all(text.strip() for text in result["answers"].values())
    assert result["fine_tuned_model"].startswith("ft:SmolLM2-135M-Instruct:local:quillon-support:")
    assert {citation["document"] for citation in result["citations"]} >= {"scanner-factory-reset.md"}
    for citation in result["citations"]:
        assert citation["end"] - citation["start"] == len(citation["quote"]) > 0


def test_it_says_in_plain_words_what_was_asked_answered_and_paid(quickstart: QuickstartRun) -> None:
    for part in ("Question: ", "--- base", "--- fine_tuned", "--- rag", "--- hybrid", "measured here", "assumed"):
        assert part in quickstart.stdout


def test_it_runs_where_there_is_no_network(quickstart: QuickstartRun) -> None:
    if not quickstart.isolated:
        pytest.skip("this machine allows no network namespaces")
    assert quickstart.result["answers"]["hybrid"]


def test_it_leaves_nothing_running(quickstart: QuickstartRun) -> None:
    assert quickstart.left_running == []


def test_a_second_run_reuses_what_is_there(
    quickstart: QuickstartRun, tmp_path: Path, figures: dict[str, object]
) -> None:
    second = run_quickstart(copy_home(quickstart.home, tmp_path / "home"))
    assert second.result["fine_tuned_model"] == quickstart.result["fine_tuned_model"]
    assert "reusing ft:" in second.stderr
    assert second.result["answers"] == quickstart.result["answers"]
    figures["quickstart, first run, seconds"] = quickstart.result["timings_seconds"]
    figures["quickstart, second run, seconds"] = second.result["timings_seconds"]
