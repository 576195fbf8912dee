"""The benchmark of growth in small, and the sizing that reckons with what it measures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..conftest import REPOSITORY

SCRIPTS = REPOSITORY / "scripts"
FIGURES = REPOSITORY / "docs" / "figures" / "growth.json"
sys.path.insert(0, str(SCRIPTS))

from growth_bench.corpus import BLOCK_PASSAGES, Corpus, _made_word  # noqa: E402

from local_llm.costs.local import Traffic  # noqa: E402
from local_llm.sizing.measured import growth_of, passages_per_second  # noqa: E402
from local_llm.sizing.passages import view_bytes  # noqa: E402
from local_llm.sizing.request_table import Load, request_rows  # noqa: E402


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(SCRIPTS / script), *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=REPOSITORY, check=False)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("growth")


@pytest.fixture(scope="module")
def small(work: Path) -> dict[str, Any]:
    sizes = ("--passages", "400", "1200", "--dimension", "64", "--questions", "5")
    done = run("bench_growth.py", "--work", str(work), *sizes, "--out", str(work / "out" / "growth.json"))
    assert done.returncode == 0, done.stderr
    assert "| disk: index of words" in done.stdout
    assert json.loads((work / "out" / "growth.json").read_text()) == json.loads(done.stdout.splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def test_the_small_run_measures_every_cost(small: dict[str, Any]) -> None:
    assert [one["passages"] for one in small["sizes"]] == [400, 1200]
    for one in small["sizes"]:
        assert all(value > 0 for value in one.values() if isinstance(value, int | float)), one
        assert one["view_bytes"] == one["passages"] * (4 * 64 + 13)
        assert one["vectors_disk_bytes"] >= one["passages"] * 4 * 64
    assert 0.8 < small["growth"]["64"]["vectors_disk_bytes"]["exponent"] < 1.2


def test_what_was_measured_is_not_measured_again(small: dict[str, Any], work: Path) -> None:
    sizes = ("--passages", "400", "1200", "--dimension", "64", "--questions", "5")
    again = run("bench_growth.py", "--work", str(work), *sizes)
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout.splitlines()[-1])["sizes"] == small["sizes"]
    assert not list(work.glob("*/store"))


def test_a_larger_corpus_has_the_documents_of_a_smaller_one() -> None:
    corpus = Corpus(64)
    few = next(iter(corpus.blocks(40)))
    many = list(corpus.blocks(BLOCK_PASSAGES + 4))
    assert [len(few), *map(len, many)] == [10, 100, 1]
    for one, other in zip(few, many[0], strict=False):
        assert (one.name, one.parsed.text) == (other.name, other.parsed.text)
        assert np.array_equal(one.vectors, other.vectors)


def test_no_two_made_words_are_the_same() -> None:
    words = {_made_word(number) for number in range(50_000)}
    assert len(words) == 50_000


# Sizing, on what is published


def test_the_published_figures_are_of_the_formulas() -> None:
    """What the index said it holds, at each size with a structure, is what sizing says that it will."""
    for one in json.loads(FIGURES.read_text())["sizes"]:
        if one["structure"] == "ivf":
            assert one["view_bytes"] == pytest.approx(view_bytes(one["passages"], one["dimension"]), rel=1e-6)


def test_sizing_prints_every_row_with_its_standing() -> None:
    done = run("sizing.py", "--passages", "1e8", "--dimension", "768", "--requests", "1000", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {given["standing"] for given in result["inputs"].values()} == {"measured", "input"}
    assert all(given["source"] for given in result["inputs"].values())
    rows = [*result["passages"]["768"], *result["requests"]]
    assert all(row["standing"] == "computed" and row["how"] for row in rows)
    unknown = [row for row in rows if row["values"] == [None]]
    assert [row["what"] for row in unknown] == ["engine GPUs"]
    assert "local-llm cost measure" in unknown[0]["how"]
    [gpu] = [row for row in rows if row["what"] == "GPU memory: exact, float16"]
    assert gpu["values"] == [1e8 * (2 * 768 + 1)]


def test_sizing_takes_the_rates_of_an_engine_from_its_user() -> None:
    rates = ("--prefill-tokens-per-second", "20000", "--decode-tokens-per-second", "2000")
    done = run("sizing.py", "--requests", "10", "--dimension", "384", "--json", *rates)
    [row] = [row for row in json.loads(done.stdout)["requests"] if row["what"] == "engine GPUs"]
    assert row["values"] == [5]  # 10 x (2000 / 20000 + 300 / 2000) / 0.5


def test_sizing_says_which_dimension_was_not_measured() -> None:
    done = run("sizing.py", "--dimension", "512")
    assert done.returncode == 1
    assert "0 sizes of 512 numbers" in done.stderr
    assert "--dimension 512" in done.stderr


@pytest.mark.parametrize("content", [None, "no JSON", "[]", "{}"])
def test_sizing_names_a_file_without_figures(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "growth.json").write_text(content)
    done = run("sizing.py", "--growth", str(tmp_path / "growth.json"))
    assert done.returncode == 1
    assert "growth.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_requests_by_hand() -> None:
    growth = growth_of(json.loads(FIGURES.read_text()), 384)
    load = Load(Traffic(2000, 300), None, utilisation=0.5, pairs=100)
    rows = {row.what: row.values for row in request_rows([1000], load, [(1e6, growth)])}
    # 1,000 x 233 µs / 0.5 = 0.466; + 300 x 8.5 µs: 5.566; + 2.8 ms: 11.166
    assert rows["gateway processes, whole answers"] == (1,)
    assert rows["gateway processes, streamed"] == (6,)
    assert rows["gateway processes, streamed with context"] == (12,)
    assert rows["tokens to write"] == (300_000,)
    assert rows["state: rows of usage, at most"] == (2000,)
    assert rows["state: transactions that write, at most"] == (36,)


def test_the_speed_of_other_encoders_is_computed() -> None:
    for dimension, expected, standing in ((384, 100, "measured"), (768, 12.5, "computed")):
        found = passages_per_second(dimension)
        assert found is not None
        assert (found.value, found.standing) == (expected, standing)
    assert passages_per_second(512) is None
