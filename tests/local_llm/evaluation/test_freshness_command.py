"""`local-llm evaluate freshness` against the real gateway and index: a fact changes in a document."""

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from index.ingestion.ingest import find_sources
from local_llm import ledger
from local_llm.cli.app import run

from ...conftest import REPOSITORY
from .world import COLLECTION, TUNED, Box, box

QUESTION = "How long does the battery charge?"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with box(tmp_path_factory.mktemp("box")) as made:
        yield made


@pytest.fixture(autouse=True)
def home(world: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the documents as they were at first, whatever a test did."""
    monkeypatch.setenv("LOCAL_LLM_HOME", str(world.settings.home))
    world.index.add(world.admin, COLLECTION, find_sources([world.folder / "documents"]))


def freshness(world: Box, *more: str, old: str = "four hours", new: str = "three hours") -> int:
    document = str(world.folder / "documents" / "battery.md")
    line = ["evaluate", "freshness", document, "--collection", COLLECTION, "--question", QUESTION]
    return run([*line, "--old", old, "--new", new, *more])


def stored(world: Box) -> str:
    (identifier,) = [one.id for one in world.index.documents(world.admin, COLLECTION) if one.name == "battery.md"]
    return world.index.document(world.admin, COLLECTION, identifier).text


def test_a_changed_fact_is_answered_after_a_reindex_and_the_adapter_needs_a_retrain(
    world: Box, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"fine_tuned_model": TUNED, "seconds": 1800.0, "tokens": 500}
    ledger.record(world.state, world.admin.project_id, "training", facts)
    assert freshness(world, "--machine-usd-per-hour", "2", "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["profiles"]
    for name in ("manual", "both"):
        one = found[name]
        assert ("four hours" in one["before"], "three hours" in one["after_reindex"]) == (True, True)
        assert (one["way"], one["measured"]) == ("re-index", True)
        assert one["work"]["done"]["passages"] >= 1
        assert one["seconds"] > one["work"]["seconds"] > 0
        assert one["usd"] == pytest.approx(one["seconds"] / 1800, rel=1e-9)  # at $2 an hour
    tuned = found["tuned"]
    assert (tuned["way"], tuned["measured"], tuned["seconds"], tuned["usd"]) == ("retrain", False, 1800.0, 1.0)
    assert found["base"]["way"] is None
    assert "four hours" in stored(world)  # put back as it was
    entry = ledger.latest(world.state, world.admin.project_id, "freshness")
    assert entry is not None
    assert entry.facts["profiles"]["manual"]["seconds"] == found["manual"]["seconds"]
    assert "before" not in entry.facts["profiles"]["manual"]  # figures, and nobody's texts


def test_the_table_tells_what_each_needs(world: Box, capsys: pytest.CaptureFixture[str]) -> None:
    assert freshness(world, "--profiles", "base,rag", "--keep") == 0
    shown = capsys.readouterr()
    assert "right after a re-index" in shown.out
    assert "never: it reads no documents and is not trained" in shown.out
    assert "holds the changed battery.md" in shown.err
    assert "three hours" in stored(world)


@pytest.mark.parametrize(
    ("options", "facts", "told"),
    [
        ((), {"old": "five hours"}, "'five hours' does not stand in battery.md as manual has it"),
        ((), {"new": "two days"}, "'two days' stands in battery.md already"),
        (("--name", "other.md"), {}, "manual has no document 'other.md'"),
        (("--retrain", "nowhere.jsonl"), {}, "nowhere.jsonl cannot be read"),
    ],
)
def test_a_fact_that_cannot_be_changed_is_told_and_nothing_is(
    world: Box, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], facts: dict[str, str], told: str
) -> None:
    before = stored(world)
    assert freshness(world, *options, **facts) == 1
    assert told in capsys.readouterr().err
    assert stored(world) == before


def test_a_training_file_without_the_new_fact_is_refused(
    world: Box, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text('{"messages": []}\n')
    assert freshness(world, "--retrain", str(file)) == 1
    assert "does not hold the new fact 'three hours'" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "The battery lasts a year."])
def test_a_document_that_could_not_be_put_back_is_not_changed(
    world: Box, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    """--changed names the new one; of the old one there is no file, or another than was added."""
    document, changed = tmp_path / "battery.md", tmp_path / "changed.md"
    if content is not None:
        document.write_text(content)
    changed.write_text("The battery charges in three hours.")
    before = stored(world)
    line = ["evaluate", "freshness", str(document), "--collection", COLLECTION, "--question", QUESTION]
    line += ["--old", "four hours", "--new", "three hours", "--changed", str(changed)]
    assert run(line) == 1
    assert "could not be put back afterwards" in capsys.readouterr().err
    assert stored(world) == before


def test_a_document_that_a_killed_run_left_changed_is_put_back_by_the_next(
    world: Box, capsys: pytest.CaptureFixture[str]
) -> None:
    document = world.folder / "documents" / "battery.md"
    killed = textwrap.dedent(f"""
        import os, signal
        from local_llm.cli import evaluate_freshness
        from local_llm.cli.app import run
        def measure(world, fact, usd):
            world.reindex()
            os.kill(os.getpid(), signal.SIGKILL)
        evaluate_freshness.measure = measure
        run(["evaluate", "freshness", {str(document)!r}, "--collection", {COLLECTION!r}, "--question", {QUESTION!r},
             "--old", "four hours", "--new", "nine hours", "--profiles", "base"])
    """)
    ended = subprocess.run([sys.executable, "-c", killed], cwd=REPOSITORY, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert "nine hours" in stored(world)
    assert freshness(world, "--profiles", "base") == 0
    assert "an earlier run was killed: battery.md" in capsys.readouterr().err
    assert "four hours" in stored(world)
    assert not (world.settings.place.run / "freshness.json").exists()
