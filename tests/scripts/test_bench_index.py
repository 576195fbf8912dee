"""The index's benchmark in small: its data are what they are said to be, and both ends of it run."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..conftest import REPOSITORY, WORLD

SCRIPT = REPOSITORY / "scripts" / "bench_index.py"
sys.path.insert(0, str(SCRIPT.parent))

from index_bench import dataset  # noqa: E402
from index_bench.dataset import WORKLOADS, Dataset, Window, enlarge  # noqa: E402

ROWS, SENTENCES, DIMENSION = 3000, 400, 384


def unit_rows(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data")
    documents = np.arange(SENTENCES) // 25
    return dataset.make(
        folder, ROWS, [f"sentence {n}" for n in range(SENTENCES)], documents, unit_rows(SENTENCES, 1),
        tuning=unit_rows(20, 2), questions=unit_rows(30, 3),
    )  # fmt: skip


def test_the_generator_gives_the_same_rows_again() -> None:
    documents = np.arange(SENTENCES) // 25
    real = unit_rows(SENTENCES, 1)
    once, again = (enlarge(real, documents, ROWS, np.random.default_rng(dataset.SEED)) for _ in range(2))
    for one, other in zip(once, again, strict=True):
        assert np.array_equal(one, other)


def test_enlarged_data_hold_every_real_sentence_and_made_ones_near_them(made: Dataset) -> None:
    real = unit_rows(SENTENCES, 1)
    nearness = real @ np.asarray(made.vectors).T
    assert (nearness.max(axis=1) > 1 - 1e-5).all()
    assert np.allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-5)
    assert (nearness > 1 - 1e-5).sum() == SENTENCES  # nothing is there twice
    assert np.median(nearness.max(axis=0)) > 0.6


def test_attributes_are_the_same_throughout_a_document(made: Dataset) -> None:
    document = made.attributes["document"]
    assert (np.diff(document) >= 0).all()
    for column in ("bucket", "topic"):
        changes = np.flatnonzero(np.diff(made.attributes[column]))
        assert (np.diff(document)[changes] == 1).all()


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_what_an_exact_search_finds_has_recall_one(made: Dataset, workload: Any) -> None:
    """Against the plainest search there is: every row scored, forbidden ones struck out."""
    queries = made.queries(workload, "questions")
    found = []
    for at, vector in enumerate(queries.vectors):
        scores = made.vectors @ vector
        window = queries.window(at)
        if window is not None:
            values = made.attributes[window.column]
            scores[(values < window.low) | (values >= window.high)] = -np.inf
        best = np.argsort(-scores)[: dataset.K]
        found.append(best[np.isfinite(scores[best])])
    assert made.recall(queries, found) == 1
    assert made.recall(queries, [rows[:-1] for rows in found]) < 1


def test_a_row_that_the_filter_forbids_is_an_error_not_a_miss(made: Dataset) -> None:
    queries = made.queries(WORKLOADS[3], "questions")
    window = queries.window(0)
    assert isinstance(window, Window)
    forbidden = np.flatnonzero(made.attributes["bucket"] >= window.high)[:1]
    with pytest.raises(ValueError, match="forbids"):
        made.recall(queries, [forbidden])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample world's texts in the form of the benchmark's source."""
    folder = tmp_path_factory.mktemp("source")
    texts = [path.read_text() for path in sorted((WORLD / "documents").glob("*.md"))]
    documents = [{"text": re.sub(r"[#*|]", " ", text)} for text in texts]
    questions = [json.loads(line) for line in (WORLD / "questions.jsonl").read_text().splitlines()]
    for name, rows in (
        ("documents", documents),
        ("questions.train", questions[:30]),
        ("questions.test", questions[30:]),
    ):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_the_small_run_measures_ours_and_bare_faiss(source: Path, tmp_path: Path) -> None:
    line = [sys.executable, str(SCRIPT), str(source), "--rows", str(ROWS), "--work", str(tmp_path)]
    line += ["--only", "ours", "faiss", "--seconds", "1", "--sentences", "300"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["skipped"] == {}
    assert set(result["systems"]["ours"]["workloads"]) == {workload.name for workload in WORKLOADS}
    assert set(result["systems"]["faiss"]["workloads"]) == {"unfiltered"}
    for system in result["systems"].values():
        for figures in system["workloads"].values():
            assert figures["recall"] >= 0.95
            assert 0 < figures["p50_milliseconds"] <= figures["p99_milliseconds"]
    again = subprocess.run(line, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert json.loads(again.stdout.splitlines()[-1]) == result  # nothing is measured twice
    assert again.stderr == ""
