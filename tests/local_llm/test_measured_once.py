"""What one part measures the others read: rows of the ledger, written by those who write them, on a GPU.

A key that is renamed on one side only breaks these.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_llm.cli.app import run
from local_llm.evaluation.answers import Answer
from local_llm.evaluation.asking import Asking
from local_llm.evaluation.costs import HourPrice
from local_llm.evaluation.evaluate import Plan, evaluate
from local_llm.evaluation.freshness import Fact, Strategies, Work, measure
from local_llm.evaluation.freshness import ledger_facts as freshness_facts
from local_llm.evaluation.question_set import Question, QuestionSet
from local_llm.evaluation.report_json import ledger_facts, report_of
from local_llm.evaluation.rules import DEFAULT
from local_llm.evaluation.targets import RECORDED, REMOTE, Target
from local_llm.identifiers import new_id, now
from local_llm.ledger import LedgerKind
from local_llm.settings import Settings
from local_llm.state import LedgerEntry, State

GPU = {"device": "cuda", "name": "NVIDIA H200", "cores": 16, "memory_gib": 128.0}
CPU = {"device": "cpu", "name": "AMD EPYC", "cores": 2, "memory_gib": 8.0}
QUESTIONS = tuple(Question(f"q{n}", ({"role": "user", "content": f"Case {n}?"},), ("yes",)) for n in range(40))
HOUR = ("--gpu", "H200", "--gpu-usd-per-hour", "3.60")

Write = Callable[..., str]
Ask = Callable[..., Any]


@pytest.fixture
def ask(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """Runs a command; returns its JSON, or what it printed."""
    monkeypatch.setenv("LOCAL_LLM_HOME", str(settings.home))

    def command(*arguments: str) -> Any:
        assert run([*arguments]) == 0
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in arguments else out

    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        yield command


@pytest.fixture
def write(state: State) -> Write:
    def entry(kind: LedgerKind, facts: dict[str, Any], hardware: dict[str, Any] = GPU, at: int = 0) -> str:
        row = LedgerEntry(
            id=new_id("led_"),
            project_id=state.local_project_id(),
            kind=kind,
            created_at=at or now(),
            hardware=hardware,
            facts=facts,
        )
        with state.session() as session:
            session.add(row)
        return row.id

    return entry


def target(name: str, strategy: str, right: int, seconds: float) -> Target:
    """Its first `right` answers are right; the n-th takes n hundredths more of `seconds`."""
    answers = {
        one.asked_sha256: Answer(
            one.asked_sha256,
            "yes" if n < right else "no",
            input_tokens=500,
            output_tokens=20,
            total_seconds=seconds * (1 + n / 100),
        )
        for n, one in enumerate(QUESTIONS)
    }
    return Target(name, strategy, recorded=answers)


def evaluation(
    folder: Path, *targets: Target, questions: str = "0" * 64, gpus: int = 1, elsewhere: bool = False
) -> dict[str, Any]:
    """The facts that the ledger gets of an evaluation of these."""
    questioned = QuestionSet(folder / "questions.jsonl", QUESTIONS, questions)
    plan = Plan(questioned, DEFAULT, targets, Asking(1, 300), HourPrice(3.6))
    found = evaluate(plan, folder, lambda *_: None, lambda _: None)
    report = report_of(
        found,
        run="eval_1",
        project="local",
        created_at=now(),
        hardware=GPU,
        engine={"gpus": gpus, "elsewhere": elsewhere},
    )
    facts: dict[str, Any] = json.loads(json.dumps(ledger_facts(report)))
    return facts


RAG, BASE = target("help", "rag", 30, 1.0), target("base", "base", 10, 0.4)
LUNA = target("gpt-6-luna", REMOTE, 20, 0.8)


def rows_of(made: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["strategy"], row["where"]): row for row in made["rows"]}


def compared(ask: Ask, *more: str) -> dict[str, Any]:
    rates = ("--prefill-tokens-per-second", "20000", "--decode-tokens-per-second", "2000")
    asked = ("--queries-per-month", "1000", "--hosted", "gpt-6-luna", *more)
    found: dict[str, Any] = ask("cost", "compare", *HOUR, *rates, *asked, "--json")
    return found


def test_an_evaluation_is_what_decide_and_cost_answer_with(ask: Ask, write: Write, tmp_path: Path) -> None:
    entry = write("evaluation", evaluation(tmp_path, BASE, RAG, LUNA))
    # decide: the 38th of 40 is the 95th percentile: 1.37 s
    told = ("--examples", "300", "--no-changes", "--no-citations", "--both-affordable")
    decided = ask("decide", *told, "--json")
    evidence = next(one for one in decided["evidence"] if one["question"] == "low_latency")
    assert decided["answers"]["low_latency"]["source"] == "measured"
    assert (evidence["answer"], evidence["measured"], evidence["entry"]) == (True, 1370.0, entry)
    assert "help (rag) took 1,370 ms at p95 over 40 questions on NVIDIA H200" in evidence["figure"]
    # cost compare: the 20th is the median
    rows = rows_of(compared(ask))
    here, hosted = rows[("rag", "local")], rows[("base", "gpt-6-luna")]
    latency = here["latency_seconds"]
    assert (latency["expected"], latency["high"]) == (pytest.approx(1.19), pytest.approx(1.37))
    assert (latency["standing"], latency["source"]) == ("measured", entry)
    assert (here["accepted_rate"]["expected"], here["accepted_rate"]["source"]) == (0.75, entry)
    assert (hosted["accepted_rate"]["expected"], hosted["accepted_rate"]["standing"]) == (0.5, "measured")
    assert hosted["latency_seconds"]["expected"] == pytest.approx(0.952)
    assert rows[("rag", "gpt-6-luna")]["accepted_rate"] is None
    text = ask("cost", "compare", *HOUR, "--queries-per-month", "1000", "--hosted", "gpt-6-luna")
    assert f"rag (local): {entry}, as help, 75.0% of 40 questions accepted" in text
    assert "1,190 ms (p95 1,370) [1]" in text
    # cost breakeven: 10 of 40 here against 20 there, so half the price, twice the rate
    (line,) = ask("cost", "breakeven", *HOUR, "--hosted", "gpt-6-luna", "--json")["break_even"]
    assert (line["accepted"], line["runs"]) == ("25% here, 50% hosted", [entry])
    plain = 3.6 / 3600 / line["hosted_usd_per_request"]
    assert line["expected"]["requests_per_second"] == pytest.approx(2 * plain)


def test_hosted_seconds_are_no_figure_of_the_gpu_that_asked(ask: Ask, write: Write, tmp_path: Path) -> None:
    write("evaluation", evaluation(tmp_path, RAG, LUNA))
    told = ("--examples", "300", "--changes", "--no-citations", "--both-affordable", "--low-latency", "--json")
    measured = ask("decide", *told)["conflict"]["measured"]
    assert [one["strategy"] for one in measured] == ["rag"]


def test_an_evaluation_on_other_hardware_is_shown_and_not_taken(ask: Ask, write: Write, tmp_path: Path) -> None:
    entry = write("evaluation", evaluation(tmp_path, RAG, LUNA), hardware=CPU)
    made = compared(ask)
    row = rows_of(made)[("rag", "local")]
    assert (row["latency_seconds"], row["accepted_rate"]) == (None, None)
    assert "not evaluated on H200" in " ".join(one["reason"] for one in row["missing"])
    (shown,) = made["evaluated_on_other_hardware"]
    assert (shown["run_id"], shown["hardware"], shown["latency_p50_seconds"]) == (entry, "AMD EPYC", 1.19)
    # a hosted model answers the same, whoever asks
    assert rows_of(made)[("base", "gpt-6-luna")]["accepted_rate"]["expected"] == 0.5
    text = ask("cost", "compare", *HOUR, "--queries-per-month", "1000", "--hosted", "gpt-6-luna")
    assert "evaluated on other hardware, and not taken:\n  rag (local): " in text


@pytest.mark.parametrize("engine", [{"gpus": 2}, {"elsewhere": True}])
def test_what_another_engine_did_is_not_taken(
    ask: Ask, write: Write, tmp_path: Path, engine: dict[str, Any]
) -> None:
    write("evaluation", evaluation(tmp_path, RAG, **engine))
    assert rows_of(compared(ask))[("rag", "local")]["accepted_rate"] is None


def test_answers_to_other_questions_are_not_compared(ask: Ask, write: Write, tmp_path: Path) -> None:
    write("evaluation", evaluation(tmp_path, BASE), at=1_000)
    write("evaluation", evaluation(tmp_path, LUNA, questions="1" * 64), at=2_000)
    breakeven = ("cost", "breakeven", *HOUR, "--hosted", "gpt-6-luna", "--json")
    assert ask(*breakeven)["break_even"][0]["accepted"].startswith("not evaluated with the same questions")
    # an older one of the same questions is
    write("evaluation", evaluation(tmp_path, LUNA), at=500)
    assert ask(*breakeven)["break_even"][0]["accepted"] == "25% here, 50% hosted"


def test_past_answers_are_told_as_supposed(ask: Ask, write: Write, tmp_path: Path) -> None:
    write("evaluation", evaluation(tmp_path, BASE, target("gpt-6-luna", RECORDED, 20, 0.8)))
    rate = rows_of(compared(ask))[("base", "gpt-6-luna")]["accepted_rate"]
    assert rate["standing"] == "assumed"
    assert "supposed to be made without passages" in rate["source"]


def test_a_files_rows_go_before_the_ledgers(ask: Ask, write: Write, tmp_path: Path) -> None:
    write("evaluation", evaluation(tmp_path, BASE, RAG))
    path = tmp_path / "evidence.json"
    path.write_text(json.dumps([{"strategy": "rag", "accepted_rate": 0.2, "run_id": "ours"}]))
    rows = rows_of(compared(ask, "--evidence", str(path)))
    assert rows[("rag", "local")]["accepted_rate"]["source"] == "ours"
    assert rows[("base", "local")]["accepted_rate"]["expected"] == 0.25


FACT = Fact("How long?", "four hours", "three hours")


def changed_fact() -> dict[str, Any]:
    """The facts that the ledger gets: 9 s of indexing one document, 6 minutes of training."""
    knows = {"indexed": False}

    def says(asked: Target, _question: str) -> Answer:
        new = asked.model == "new" or (asked.strategy == "rag" and knows["indexed"])
        return Answer("q", FACT.new if new else FACT.old)

    def reindex() -> Work:
        knows["indexed"] = True
        return Work(9.0, {"documents": 1, "passages": 3, "tokens": 400})

    world = Strategies(
        (Target("help", "rag"), Target("tuned", "fine_tuned", model="old", adapter="ft:old")),
        ask=says,
        reindex=reindex,
        retrain=lambda one: (Target(one.name, one.strategy, model="new"), Work(360.0, {"trained_tokens": 5})),
        trained_before=lambda _: None,
    )
    facts: dict[str, Any] = json.loads(json.dumps({"profiles": freshness_facts(measure(world, FACT, 3.6))}))
    return facts


def test_a_changed_fact_prices_the_update(ask: Ask, write: Write) -> None:
    write("training", {"seconds": 7200.0, "tokens": 3_000_000, "examples": 500}, at=1_000)
    write("ingestion", {"seconds": 1800.0, "documents": 400, "tokens": 1_000_000}, at=1_000)
    write("ingestion", {"seconds": 9.0, "documents": 1, "tokens": 400}, at=2_000)  # the change itself
    entry = write("freshness", changed_fact(), at=2_000)
    rows = rows_of(compared(ask))
    # 9 s and 360 s at $3.60 an hour; the set-up is that of all
    assert rows[("rag", "local")]["update_usd"]["expected"] == pytest.approx(0.009)
    assert rows[("fine_tuned", "local")]["update_usd"]["expected"] == pytest.approx(0.36)
    assert rows[("hybrid", "local")]["update_usd"]["expected"] == pytest.approx(0.369)
    assert {rows[(one, "local")]["update_usd"]["source"] for one in ("rag", "fine_tuned", "hybrid")} == {entry}
    assert rows[("rag", "local")]["set_up_usd"]["expected"] == pytest.approx(1.8)
    # hosted: the same one document of 400
    assert rows[("rag", "gpt-6-luna")]["update_usd"]["expected"] == pytest.approx(0.02 / 400)
    # of forty documents nobody measured a change: their share of all
    forty = rows_of(compared(ask, "--documents-per-update", "40"))[("rag", "local")]
    assert forty["update_usd"]["expected"] == pytest.approx(0.18)
    # and after a larger training that one is the newest word
    write("training", {"seconds": 14_400.0, "tokens": 6_000_000, "examples": 900}, at=3_000)
    assert rows_of(compared(ask))[("fine_tuned", "local")]["update_usd"]["expected"] == pytest.approx(14.4)


def test_hours_of_retrievers_count_on_the_device_that_trained(ask: Ask, write: Write) -> None:
    write("training", {"seconds": 3600.0, "tokens": 1, "examples": 1, "device": "cuda"})
    write("retriever", {"seconds": 1800.0, "cpu_seconds": 1700.0, "device": "cuda"})
    write("retriever", {"seconds": 9000.0, "cpu_seconds": 9000.0, "device": "cpu"})  # beside the GPU
    assert compared(ask)["spent"] == [
        {"work": "training of adapters", "runs": 1, "hours": 1.0},
        {"work": "training of retrievers", "runs": 1, "hours": 0.5},
    ]
