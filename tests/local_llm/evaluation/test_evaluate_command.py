"""`local-llm evaluate`, as a person or a script uses it, against the real gateway and index."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from local_llm import ledger
from local_llm.cli import evaluate_options
from local_llm.cli.app import run
from local_llm.evaluation.asking import WARM_UP
from local_llm.profiles import Profile, ProfileStore
from local_llm.run_folders import TRAINED_ON

from ...conftest import REPOSITORY
from .world import COLLECTION, TRAINED, Box, answer, box

ROWS = [
    {"id": "b1", "question": "How long does the battery charge?", "answer": "four hours", "tags": ["device"],
     "documents": ["battery.md"], "evidence": "charges in four hours from a wall socket"},
    {"id": "b2", "question": "Tell me the charging time of a battery, please.", "answer": "four hours"},
    {"id": "l1", "question": "How wide are the labels of the press?", "answer": "168 mm",
     "documents": ["labels.md"], "evidence": "labels up to 168 mm wide"},
    {"id": "m1", "question": "How far away is the moon?", "answerable": False},
]  # fmt: skip
FOUR = "base,fine_tuned,rag,hybrid"
Evaluate = Callable[..., Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with box(tmp_path_factory.mktemp("box")) as made:
        yield made


@pytest.fixture
def evaluate(world: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Runs the command; returns its report, or what it said if it failed."""
    monkeypatch.setenv("LOCAL_LLM_HOME", str(world.settings.home))
    world.engine.says = answer
    world.engine.asked.clear()

    def evaluate_with(*arguments: object) -> Any:
        code = run(["evaluate", *map(str, arguments), "--json"])
        captured = capsys.readouterr()
        if code:
            assert (code, captured.out) == (1, "")
            return captured.err
        return json.loads(captured.out)

    return evaluate_with


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return written(tmp_path / "faq.jsonl", ROWS)


def asked_of(world: Box) -> Counter[str]:
    """How often the engine was asked each thing, what went before the measuring aside."""
    texts = [str(body["messages"][-1]["content"]).rpartition("Question: ")[2] for body in world.engine.chats()]
    return Counter(text for text in texts if text != WARM_UP.text)


def test_four_strategies_answer_the_same_questions(world: Box, evaluate: Evaluate, questions: Path) -> None:
    report = evaluate(questions, "--profiles", FOUR, "--concurrency", 2, "--machine-usd-per-hour", 1)
    found = report["profiles"]
    assert {name: one["strategy"] for name, one in found.items()} == {
        "base": "base", "tuned": "fine_tuned", "manual": "rag", "both": "hybrid"
    }  # fmt: skip
    # base knows nothing and does not say so; the adapter knows the battery; documents hold all but the moon
    assert [one["accepted"] for one in found.values()] == [0, 2, 4, 4]
    assert found["base"]["quality"]["refused_rightly"]["mean"] == 0
    assert found["manual"]["quality"]["refused_rightly"]["mean"] == 1
    assert found["manual"]["quality"]["citation_precision"]["mean"] == 1
    assert found["manual"]["quality"]["citation_recall"]["mean"] == 1
    assert found["tuned"]["quality"]["citation_recall"]["mean"] == 0
    for one in found.values():
        ttft, total = one["ttft_seconds"], one["total_seconds"]
        assert 0 < ttft["p50"] <= ttft["p95"] <= ttft["p99"]
        assert ttft["p50"] <= total["p50"]
        assert one["input_tokens"] > one["output_tokens"] > 0
        assert one["usd_per_question"] > 0
    assert (found["base"]["usd_per_accepted_answer"], found["base"]["cost_per_accepted_answer"]) == (
        None, "none accepted"
    )  # fmt: skip
    # four questions cannot tell models apart, however different they look
    assert {one["verdict"] for one in report["differences"]} == {"cannot be told"}
    entry = ledger.latest(world.state, world.admin.project_id, "evaluation")
    assert entry is not None
    assert entry.facts["questions_sha256"] == report["questions"]["sha256"]
    assert (entry.facts["concurrency"], entry.facts["run"]) == (2, report["run"])
    assert entry.facts["engine"] == {"gpus": 1, "elsewhere": False}
    assert entry.facts["machine_price_assumed"] is False
    manual = ProfileStore(world.state).find(world.admin, "manual")
    assert manual is not None
    assert entry.facts["profiles"]["manual"]["collection"] == manual.collection
    assert entry.facts["profiles"]["manual"]["quality"]["f1"] == found["manual"]["quality"]["f1"]["mean"]
    assert entry.hardware["cores"] >= 1


def test_what_was_answered_is_asked_again_only_if_the_model_changed(
    world: Box, evaluate: Evaluate, questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profiles = ProfileStore(world.state)
    profiles.set(world.admin, Profile("other", "rag", collection=COLLECTION))

    def from_before(*more: object) -> int:
        report = evaluate(questions, "--profiles", "other", *more)
        return int(report["profiles"]["other"]["from_before"])

    assert from_before() == 0
    assert sorted(asked_of(world).values()) == [1, 1, 1, 1]
    world.engine.asked.clear()
    assert from_before() == 4
    assert world.engine.chats() == []
    assert from_before("--fresh") == 0
    assert from_before("--concurrency", 1) == 0  # whose times would be others
    profiles.set(world.admin, Profile("other", "rag", collection=COLLECTION, k=1))
    assert from_before() == 0
    (world.folder / "extra.md").write_text("# Extra\n\nNothing of interest.\n")
    assert run(["index", "add", COLLECTION, str(world.folder / "extra.md")]) == 0
    capsys.readouterr()
    assert from_before() == 0  # a document more
    assert from_before() == 4
    profiles.remove(world.admin, "other")


def test_a_killed_evaluation_goes_on_where_it_was(world: Box, questions: Path, tmp_path: Path) -> None:
    many = written(tmp_path / "many.jsonl", [{"question": f"Question {n}?", "answer": f"{n}"} for n in range(30)])

    def slow(body: dict[str, Any]) -> str:
        time.sleep(0.15)
        return str(body["messages"][-1]["content"])

    world.engine.says = slow
    world.engine.asked.clear()
    line = [sys.executable, "-m", "local_llm", "evaluate", str(many), "--profiles", "base", "--concurrency", "2"]
    environment = {**os.environ, "LOCAL_LLM_HOME": str(world.settings.home), "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([*line, "--json"], env=environment, stdout=subprocess.PIPE, cwd=tmp_path)
    kept = world.settings.place.evaluations / "answers"

    def answered() -> list[str]:
        kept_text = b"".join(path.read_bytes() for path in kept.rglob("*.jsonl")).decode()
        return re.findall(r'"text": "(Question \d+\?)"', kept_text)

    deadline = time.monotonic() + 60
    while len(answered()) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = set(answered())
    done = subprocess.run([*line, "--json"], env=environment, capture_output=True, check=False, cwd=tmp_path)
    report = json.loads(done.stdout)
    assert report["profiles"]["base"]["questions"] == report["profiles"]["base"]["accepted"] == 30
    assert 5 <= len(before) < 30
    assert report["profiles"]["base"]["from_before"] == len(before)
    counts = asked_of(world)
    assert {text: counts[text] for text in before} == dict.fromkeys(before, 1)
    assert max(counts.values()) <= 2  # those that were under way when the kill came


def test_a_hosted_models_past_answers_are_compared_with_its_replacement(
    world: Box, evaluate: Evaluate, questions: Path, tmp_path: Path
) -> None:
    past = [{"id": row["id"], "answer": "Four hours.", "input_tokens": 100, "output_tokens": 10} for row in ROWS]
    recorded = written(tmp_path / "hosted.jsonl", past)
    report = evaluate(questions, "--profiles", "rag", "--recorded", recorded, "--price", "hosted=0.15/0.60")
    hosted = report["profiles"]["hosted"]
    assert (hosted["accepted"], hosted["strategy"]) == (2, "recorded")
    # (100 * 0.15 + 10 * 0.60) / 10^6 a question, half of them accepted
    assert hosted["usd_per_question"] == pytest.approx(21e-6, rel=1e-9)
    assert hosted["usd_per_accepted_answer"] == pytest.approx(42e-6, rel=1e-9)
    assert hosted["total_seconds"] == {"p50": None, "p95": None, "p99": None}
    unpriced = evaluate(questions, "--recorded", recorded)["profiles"]["hosted"]
    assert (unpriced["usd_per_question"], unpriced["cost_per_question"]) == (None, "unpriced")
    assert unpriced["cost_per_accepted_answer"] == "unpriced"


def test_any_server_of_the_same_api_can_be_asked(world: Box, evaluate: Evaluate, questions: Path) -> None:
    report = evaluate(questions, "--endpoint", f"there=both@{world.url}/v1", "--price", "there=1/2")
    assert (report["profiles"]["there"]["accepted"], report["profiles"]["there"]["strategy"]) == (4, "endpoint")
    assert report["profiles"]["there"]["cost_basis"] == "tokens x their prices"


def test_questions_of_the_training_file_are_refused(world: Box, evaluate: Evaluate, tmp_path: Path) -> None:
    near = TRAINED.replace("tell me", "tell us")
    path = written(
        tmp_path / "q.jsonl", [{"question": TRAINED, "answer": "a"}, {"question": near + "!", "answer": "b"}]
    )
    said = evaluate(path, "--profiles", "base,both")
    assert "questions were trained on: line-1 is line 1 of train.jsonl" in said
    assert "--allow-seen" in said
    assert world.engine.chats() == []
    assert evaluate(path, "--profiles", "base")["questions"]["seen_in_training"] == []
    report = evaluate(path, "--profiles", "both", "--allow-seen")
    assert report["questions"]["seen_in_training"][0]["question_id"] == "line-1"


def test_questions_that_the_encoder_was_trained_on_are_refused(
    world: Box, evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their documents are found as no others are: rag and hybrid would look better than they are."""
    monkeypatch.setattr(evaluate_options, "trained_by", lambda _: "ret-1")
    run = world.settings.place.retrievers / "ret-1"
    run.mkdir(parents=True)
    (run / TRAINED_ON).write_text(json.dumps({"question": "How does the press start?", "documents": ["a.md"]}))
    path = written(tmp_path / "q.jsonl", [{"question": "How does the press start?", "answer": "a"}])
    assert "questions were trained on: line-1 is line 1 of trained-on.jsonl of" in evaluate(
        path, "--profiles", "rag"
    )
    assert evaluate(path, "--profiles", "base")["questions"]["seen_in_training"] == []


def test_a_judge_has_its_say(world: Box, evaluate: Evaluate, questions: Path) -> None:
    (questions.parent / "faq.rules.toml").write_text("[right]\nmin_judge = 4\n")
    report = evaluate(questions, "--profiles", "tuned", "--judge", "base")
    # 5, 5 and 1 of three that can be answered; the fourth was to be refused
    assert report["profiles"]["tuned"]["quality"]["judge"]["mean"] == pytest.approx(11 / 3, abs=1e-9)
    assert (report["profiles"]["tuned"]["accepted"], report["profiles"]["tuned"]["unjudged"]) == (2, 0)


def test_one_question_has_no_intervals(evaluate: Evaluate, tmp_path: Path) -> None:
    path = written(tmp_path / "one.jsonl", ROWS[:1])
    report = evaluate(path, "--profiles", "base,manual")
    share = report["profiles"]["manual"]["accepted_share"]
    assert (share["mean"], share["low"], share["high"]) == (1, None, None)
    assert "[cannot be told]" in (Path(report["folder"]) / "report.md").read_text().replace("\\", "")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "nobody is to be asked"),
        (("--profiles", "nobody"), "there is no profile 'nobody'"),
        (("--profiles", "base", "--price", "other=1/2"), "nobody who is asked is called 'other'"),
        (("--profiles", "base", "--price", "base=free"), "expected INPUT/OUTPUT"),
        (("--endpoint", "x=m@http://127.0.0.1:9/v1"), "no server answers at http://127.0.0.1:9/v1"),
        (("--endpoint", "x=m@http://127.0.0.1:9/v1", "--key-env", "x=NO_SUCH"), "has no NO_SUCH"),
        (("--recorded", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
    ],
)
def test_what_cannot_be_asked_is_told_plainly(
    evaluate: Evaluate, questions: Path, options: tuple[str, ...], told: str
) -> None:
    assert told in evaluate(questions, *options)


def test_an_engine_that_fails_every_time_makes_no_report(world: Box, evaluate: Evaluate, tmp_path: Path) -> None:
    path = written(tmp_path / "q.jsonl", [{"question": "Unheard of?", "answer": "x"}])
    before = ledger.latest(world.state, world.admin.project_id, "evaluation")
    world.engine.status = 500
    try:
        assert "base answered none of 1 questions" in evaluate(path, "--profiles", "base")
    finally:
        world.engine.status = None
    after = ledger.latest(world.state, world.admin.project_id, "evaluation")
    assert (before and before.id) == (after and after.id)


class References(HTMLParser):
    """All that an HTML file would have a browser fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "iframe", "img", "object", "embed"):
            self.found.append(tag)
        for name, value in attributes:
            inside = (value or "").startswith("#")
            if name in ("src", "href", "xlink:href", "action", "data") and not inside:
                self.found.append(f"{name}={value}")


def test_the_report_is_one_file_in_which_nothing_is_markup_of_others(
    world: Box, evaluate: Evaluate, tmp_path: Path
) -> None:
    hostile = "<script>alert(1)</script> | $x_1$ ](http://evil.invalid)"
    path = written(tmp_path / "q.jsonl", [{"question": hostile, "answer": hostile, "tags": [hostile]}])
    out = tmp_path / "out"
    report = evaluate(path, "--profiles", "base", "--out", out)
    assert sorted(one.name for one in out.iterdir()) == ["answers.jsonl", "report.html", "report.json", "report.md"]
    page = (out / "report.html").read_text()
    parser = References()
    parser.feed(page)
    assert parser.found == []
    assert "url(http" not in page
    assert page.count("<svg") >= 3
    addresses = set(re.findall(r"https?://[^\"'\s<)]+", page)) - {"http://evil.invalid"}  # its own text
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "&lt;script&gt;" in page
    markdown = (out / "report.md").read_text()
    assert "<script>" not in markdown.replace("\\<", "")
    assert json.loads((out / "report.json").read_text())["run"] == report["run"]


def test_evaluations_of_the_same_questions_are_compared_over_time(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(
        tmp_path / "q.jsonl", [{"question": "How long is the battery's charging?", "answer": "four hours"}]
    )
    first = evaluate(path, "--profiles", "base")
    (tmp_path / "q.rules.toml").write_text("[right]\nexact = true\n")
    second = evaluate(path, "--profiles", "base,tuned")
    reports = evaluate("history", path, "--html", tmp_path / "h.html")
    assert [one["run"] for one in reports] == [first["run"], second["run"]]
    assert "<svg" in (tmp_path / "h.html").read_text()
    assert "Accepted answers over time" in (Path(second["folder"]) / "report.html").read_text()
    assert run(["evaluate", "history", str(path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.rstrip().endswith("other rules") for line in shown[1:]] == [True, False, False]
    assert "no evaluation of" in evaluate("history", written(tmp_path / "other.jsonl", ROWS[:2]))


def test_a_home_without_evaluations_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_LLM_HOME", str(tmp_path / "home"))
    assert run(["evaluate", "history"]) == 1
    said = capsys.readouterr().err
    assert "no evaluation yet" in said
    assert "local-llm evaluate QUESTIONS" in said
