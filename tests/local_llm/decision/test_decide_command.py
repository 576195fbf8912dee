"""local-llm decide as people and machines use it: flags, files, questions at a terminal, and what comes out."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import typer

from local_llm.cli.app import app, run
from local_llm.decision.next_steps import next_steps
from local_llm.identifiers import new_id, now
from local_llm.profiles import Strategy
from local_llm.settings import Settings
from local_llm.state import LedgerEntry, State

ALL_NO = ["--no-changes", "--no-citations", "--no-low-latency", "--no-both-affordable"]


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def decide(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    monkeypatch.setenv("LOCAL_LLM_HOME", str(settings.home))
    monkeypatch.setenv("COLUMNS", "200")

    def run_command(*arguments: str) -> Done:
        code = run(["decide", *arguments])
        out, err = capsys.readouterr()
        return Done(code, out, err)

    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        yield run_command


@pytest.fixture
def evaluated(state: State) -> Callable[[float], None]:
    """An evaluation of rag and hybrid on a GPU."""

    def write(p95: float) -> None:
        profiles = {
            f"help-{strategy}": {"strategy": strategy, "total_seconds": {"p95": p95 + more}}
            for strategy, more in (("rag", 0.0), ("hybrid", 0.1))
        }
        entry = LedgerEntry(
            id=new_id("led_"),
            project_id=state.local_project_id(),
            kind="evaluation",
            created_at=now(),
            hardware={"device": "cuda", "name": "NVIDIA H100", "cores": 16, "memory_gib": 128.0},
            facts={"questions": 50, "profiles": profiles},
        )
        with state.session() as session:
            session.add(entry)

    return write


def test_flags_decide(decide) -> None:
    done = decide("--examples", "412", "--citations", "--no-changes", "--no-low-latency", "--both-affordable")
    assert done.code == 0
    assert done.out.startswith("strategy: hybrid\n")
    assert "Are there 100 or more good examples? yes (told: 412 examples)" in done.out
    assert "what would flip it:\n  fewer than 100 good examples: rag (now: 412 examples)" in done.out
    assert "only one being affordable: rag" in done.out


def test_the_json_has_one_shape_whatever_is_decided(decide) -> None:
    keys = ["strategy", "gates", "open_ways", "answers", "path", "conflict", "contradictions", "evidence", "flips"]
    plain = decide("--examples", "5", *ALL_NO, "--gpu", "--json").json
    full = decide(
        "--examples", "500", "--changes", "--citations", "--low-latency", "--both-affordable", "--air-gapped",
        "--no-gpu", "--json",
    ).json  # fmt: skip
    for found in (plain, full):
        assert list(found) == [*keys, "next_steps"]
        assert list(found["answers"]) == [
            "examples", "changes", "citations", "low_latency", "both_affordable", "behaviour",
        ]  # fmt: skip
        assert all(set(answer) == {"yes", "source", "because"} for answer in found["answers"].values())
        assert all(set(step) == {"node", "question", "yes", "grounds", "why"} for step in found["path"])
        assert all(set(step) == {"command", "why"} for step in found["next_steps"])
        assert [one["question"] for one in found["evidence"]] == ["examples", "changes", "low_latency"]
    assert (plain["strategy"], plain["conflict"], plain["gates"]) == ("rag", None, [])
    assert plain["flips"] == [
        {"changed": {"examples": True, "low_latency": True}, "strategy": "fine_tuned"},
        {"changed": {"examples": True, "both_affordable": True}, "strategy": "hybrid"},
        {"changed": {"examples": True, "behaviour": True}, "strategy": "fine_tuned"},
    ]
    assert full["strategy"] == "hybrid"
    assert full["conflict"]["measured"] == []
    assert [gate["name"] for gate in full["gates"]] == ["air_gap", "no_gpu"]
    assert full["open_ways"] == ["local_cpu"]


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_decides_and_flags_beat_it(decide, tmp_path: Path, suffix: str) -> None:
    told = {
        "examples": 200,
        "changes": False,
        "citations": False,
        "low_latency": False,
        "both_affordable": False,
        "style_needed": True,
    }
    file = tmp_path / f"answers{suffix}"
    toml = "".join(f"{name} = {json.dumps(value)}\n" for name, value in told.items())
    file.write_text(json.dumps(told) if suffix == ".json" else toml)
    assert decide("--file", str(file), "--json").json["strategy"] == "fine_tuned"
    assert decide("--file", str(file), "--citations", "--json").json["strategy"] == "rag"
    assert decide("--file", str(file), "--citations", "--both-affordable", "--json").json["strategy"] == "hybrid"
    assert decide("--file", str(file), "--examples", "7", "--json").json["strategy"] == "rag"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.toml", "change = true", "change: there is no such key; expected some of changes"),
        ("a.toml", 'changes = "yes"', "changes = 'yes'"),
        ("a.toml", "examples = -1", "examples = -1"),
        ("a.json", '{"examples": true}', "examples = True"),
        ("a.json", '{"changes": true, "changes": false}', "`changes` given more than once"),
        ("a.json", "[]", "holds no object"),
        ("a.toml", "changes =", "is not TOML"),
        ("a.yaml", "changes: true", "expected a name in .toml or .json"),
        ("nowhere/a.toml", None, "cannot be read"),
    ],
)
def test_a_file_that_says_something_else_is_refused(decide, tmp_path: Path, name, text, reason) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    done = decide("--file", str(file), "--examples", "5", *ALL_NO)
    assert (done.code, done.out) == (1, "")
    assert reason in done.err


def test_with_one_question_answered_the_others_flags_are_named(decide) -> None:
    done = decide("--citations")
    assert (done.code, done.out) == (2, "")
    for flag in ("--examples N", "--no-changes", "--no-low-latency", "--no-both-affordable"):
        assert flag in done.err
    assert "--no-citations" not in done.err
    assert "no evaluation of rag yet" in done.err


def test_what_nobody_said_is_asked_at_a_terminal(settings: Settings) -> None:
    """All of it through a real terminal: two answers, of which one is first given wrongly."""
    ours, theirs = pty.openpty()
    line = [
        sys.executable,
        "-m",
        "local_llm",
        "decide",
        "--no-changes",
        "--no-citations",
        "--low-latency",
        "--json",
    ]
    environment = {**os.environ, "LOCAL_LLM_HOME": str(settings.home)}
    with subprocess.Popen(
        line, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as asked:
        os.close(theirs)
        os.write(ours, b"many\n150\nn\n")
        out, err = (text.decode() for text in asked.communicate(timeout=60))
    os.close(ours)
    assert asked.returncode == 0, err
    found = json.loads(out)
    assert found["strategy"] == "fine_tuned"
    assert found["answers"]["examples"] == {"yes": True, "source": "told", "because": "150 examples"}
    assert "How many good examples are there?" in err
    assert "Can you afford both" in err
    assert "Must sources be cited?" not in err


def test_the_ledger_answers_and_shows_its_figure(decide, evaluated) -> None:
    evaluated(0.82)
    told = ["--examples", "300", "--no-changes", "--no-citations", "--both-affordable"]
    done = decide(*told, "--json").json
    assert done["strategy"] == "fine_tuned"
    assert done["answers"]["low_latency"]["source"] == "measured"
    assert "820 ms at p95 over 50 questions on NVIDIA H100" in done["answers"]["low_latency"]["because"]
    assert done["evidence"][2]["threshold"] == 500
    text = decide(*told).out
    assert "Set: --no-low-latency, if nobody waits for these answers" in text
    assert "no need for very low latency: hybrid (now: help-rag (rag) took 820 ms at p95" in text


def test_what_is_told_beats_the_ledger_and_the_contradiction_is_shown(decide, evaluated) -> None:
    evaluated(0.82)
    told = ["--examples", "300", "--no-changes", "--no-citations", "--both-affordable", "--no-low-latency"]
    found = decide(*told, "--json").json
    assert found["strategy"] == "hybrid"
    assert [one["question"] for one in found["contradictions"]] == ["low_latency"]
    assert "Is very low latency needed? no was told and holds; measured: help-rag" in decide(*told).out


def test_a_conflict_is_told_with_the_milliseconds_that_were_measured(decide, evaluated) -> None:
    told = ["--examples", "300", "--changes", "--no-citations", "--both-affordable", "--low-latency"]
    before = decide(*told)
    assert "nothing was measured on a GPU" in before.out
    assert re.search(r"\d ms", before.out) is None
    evaluated(0.82)
    found = decide(*told, "--json").json
    assert {one["strategy"]: one["p95_milliseconds"] for one in found["conflict"]["measured"]} == {
        "rag": 820,
        "hybrid": 920,
    }
    assert "measured: help-hybrid (hybrid) took 920 ms at p95" in decide(*told).out


def test_slow_retrieval_is_not_told_as_a_need_that_somebody_has(decide, evaluated) -> None:
    evaluated(0.82)
    told = ["--examples", "300", "--changes", "--no-citations", "--both-affordable", "--json"]
    measured = decide(*told).json["conflict"]["reason"]
    assert "retrieval that takes more than 500 ms" in measured
    assert "need for very low latency" not in measured
    assert "need for very low latency" in decide(*told, "--low-latency").json["conflict"]["reason"]


def test_gates_come_first_and_a_vendor_that_is_ruled_out_is_not_compared(decide) -> None:
    told = ["--examples", "5", *ALL_NO]
    assert "local-llm cost compare" in decide(*told).out
    closed = decide(*told, "--residency", "EU", "--no-gpu").out
    assert "local-llm cost compare" not in closed
    assert closed.index("data stays in EU") < closed.index("there is no GPU") < closed.index("path:")
    opened = decide(*told, "--residency", "EU", "--hosted-region", "US", "--hosted-region", "EU").out
    assert "local-llm cost compare" in opened


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_tree_is_drawn(decide, tmp_path: Path, suffix: str) -> None:
    drawing = tmp_path / f"tree{suffix}"
    done = decide("--examples", "412", *ALL_NO, "--terms-needed", "--plot", str(drawing))
    assert done.code == 0
    assert f"drawn: {drawing}" in done.err
    if suffix == ".svg":
        assert ">strategy: fine_tuned<" in drawing.read_text()
        assert ">examples: yes (told)<" in drawing.read_text()
        assert all(f">{strategy}<" in drawing.read_text() for strategy in ("rag", "fine_tuned", "hybrid"))


def test_a_drawing_of_another_format_is_refused(decide, tmp_path: Path) -> None:
    done = decide("--examples", "412", *ALL_NO, "--plot", str(tmp_path / "tree.pdf"))
    assert (done.code, done.out) == (1, "")
    assert "expected a name in .svg or .png" in done.err
    nowhere = decide("--examples", "412", *ALL_NO, "--plot", str(tmp_path / "nowhere" / "tree.png"))
    assert (nowhere.code, nowhere.out) == (1, "")
    assert "tree.png cannot be written: No such file or directory" in nowhere.err


def test_an_unknown_collection_is_told(decide) -> None:
    done = decide("--examples", "412", *ALL_NO, "--collection", "nowhere")
    assert done.code == 1
    assert "local-llm index list" in done.err


STRATEGIES: tuple[Strategy, ...] = ("rag", "fine_tuned", "hybrid")


def commands_for(strategy: Strategy, **more: Any) -> list[str]:
    given = {"collection": None, "enough_examples": True, "hosted": True} | more
    return [step.command for step in next_steps(strategy, **given)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_next_steps_begin_with_retrieval_and_end_with_measuring(strategy: Strategy) -> None:
    commands = commands_for(strategy)
    assert commands[0] == "local-llm index create handbook"
    assert commands_for(strategy, collection="faq")[0].startswith("local-llm profiles set faq-rag")
    trained = [at for at, one in enumerate(commands) if one.startswith("local-llm train adapter")]
    asked = next(at for at, one in enumerate(commands) if one.startswith("local-llm ask"))
    assert bool(trained) == (strategy != "rag")
    assert all(at > asked for at in trained)
    evaluation = next(one for one in commands if one.startswith("local-llm evaluate"))
    mine = f"handbook-{strategy.replace('_', '-')}"
    assert evaluation.split()[-1].split(",") == list(dict.fromkeys(["handbook-rag", mine]))


def test_nothing_is_evaluated_with_the_questions_that_it_learned_from() -> None:
    for strategy in STRATEGIES:
        for command in commands_for(strategy):
            learns = command.startswith(("local-llm train retriever", "local-llm train dataset raft"))
            assert not (learns and " questions.jsonl" in command)
            assert not (command.startswith("local-llm evaluate") and "training-questions.jsonl" in command)


def test_without_examples_they_are_collected_first() -> None:
    collecting = "local-llm train dataset chats --out examples.jsonl"
    assert collecting in commands_for("rag", enough_examples=False)
    assert collecting not in commands_for("rag")


@pytest.mark.parametrize(
    "command",
    sorted({
        one
        for strategy, enough in product(STRATEGIES, (True, False))
        for one in commands_for(strategy, enough_examples=enough)
    }),
)  # fmt: skip
def test_every_next_step_is_a_command_that_can_be_typed(command: str) -> None:
    """Parsed as it would be run, group by group: `evaluate QUESTIONS` is put right by its group."""
    program, *words = shlex.split(command)
    assert program == "local-llm"
    found: Any = typer.main.get_command(app)
    context = found.make_context(program, words)
    while getattr(found, "commands", None):
        name, found, words = found.resolve_command(context, [*context._protected_args, *context.args])
        context = found.make_context(name, words, parent=context)
