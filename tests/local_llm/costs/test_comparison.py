"""The comparison: figures of this hardware from the ledger, all others assumed or unknown, and said to be."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from local_llm import ledger
from local_llm.cli.app import run
from local_llm.costs.article import check_article, context_tokens_for, tokens_for
from local_llm.costs.compare import Here, compare
from local_llm.costs.evaluations import AnswerEvidence, read_answers
from local_llm.costs.evidence import Evidence, Whereabouts, gather
from local_llm.costs.figure import exactly
from local_llm.costs.hosted import offer_of
from local_llm.costs.local import Extras, Traffic
from local_llm.costs.prices import load_prices
from local_llm.costs.row import Asked, Row
from local_llm.costs.throughput import Throughput
from local_llm.errors import InvalidInputError
from local_llm.hardware import this_hardware
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import LedgerEntry, State

DAY = datetime.date(2026, 11, 23)
# 20,000 tokens read, 2,000 written a second.
SPEED = {"seconds_per_prefill_token": 5e-5, "seconds_per_decode_token": 5e-4, "seconds": 90.0, "gpus": 1}
BASE = {**SPEED, "model": "small", "is_adapter": False}
TRAINING = {"seconds": 7200.0, "tokens": 3_000_000, "examples": 500}
INDEXING = {"seconds": 1800.0, "documents": 400, "tokens": 1_000_000}
ASKED = Asked(Traffic(500, 300, context_tokens=1_500), queries_per_month=1_000_000, updates_per_month=2)


@pytest.fixture
def measured(state: State, admin: Caller) -> dict[str, str]:
    """Run ids by kind."""
    return {
        "throughput": ledger.record(state, admin.project_id, "throughput", BASE),
        "training": ledger.record(state, admin.project_id, "training", TRAINING),
        "ingestion": ledger.record(state, admin.project_id, "ingestion", INDEXING),
    }


def evidence(state: State, admin: Caller, **options: Any) -> Evidence:
    return gather(state, admin.project_id, Whereabouts.here(this_hardware()), **options)


Rows = dict[tuple[str, str], Row]


def rows_of(
    settings: Settings, found: Evidence, asked: Asked = ASKED, **changes: Any
) -> dict[tuple[str, str], Row]:
    here = Here(**{"usd_per_hour": exactly(3.6, "assumed", "given"), "evidence": found, **changes})
    offer = offer_of(
        load_prices(settings),
        "gpt-4o-mini",
        encoder="text-embedding-3-small",
        today=DAY,
        training_usd_per_million_tokens=3.0,
        training_tokens=None,
    )
    return {(row.strategy, row.where): row for row in compare(asked, here, [offer])}


def test_local_figures_are_the_ledgers_to_the_cent(
    settings: Settings, state: State, admin: Caller, measured: dict[str, str]
) -> None:
    row = rows_of(settings, evidence(state, admin))[("rag", "local")]
    # 0.5 h x 3.60
    assert row.set_up_usd == exactly(pytest.approx(1.80), "measured", measured["ingestion"])
    # 2,000 x 5e-5 + 300 x 5e-4 = 0.25 s: 250,000 s = 69.44 h of 730, all of them paid: 730 x 3.60 = 2,628
    assert row.month is not None
    assert row.month.utilisation == pytest.approx(69.4444 / 730, rel=1e-5)
    assert round(row.month.busy_usd.expected, 2) == 250.00
    assert round(row.month.idle_usd.expected, 2) == 2378.00
    assert row.usd_per_query == exactly(pytest.approx(0.002628), "measured", measured["throughput"])
    # and two updates of 1.80
    assert row.usd_per_month is not None
    assert round(row.usd_per_month.expected, 2) == 2631.60
    assert (row.cites, row.data_needed) == (True, f"400 documents ({measured['ingestion']})")


def test_hosted_figures_are_the_price_files_to_the_cent(
    settings: Settings, state: State, admin: Caller, measured: dict[str, str]
) -> None:
    rows = rows_of(settings, evidence(state, admin))
    # 500 x 0.15 + 300 x 0.60 = 255; with 1,500 of context 480; fine-tuned 510 and 960 (all / 10^6)
    assert [
        round(rows[(strategy, "gpt-4o-mini")].usd_per_query.expected * 1e6)
        for strategy in ("base", "rag", "fine_tuned", "hybrid")
    ] == [255, 480, 510, 960]
    # 3 million tokens at $3; a million at $0.02
    assert rows[("hybrid", "gpt-4o-mini")].set_up_usd.expected == pytest.approx(9.02)
    # 960 a million queries, and two updates
    assert rows[("hybrid", "gpt-4o-mini")].usd_per_month.expected == pytest.approx(960 + 2 * 9.02)


def test_an_adapter_that_was_not_measured_is_assumed_as_fast_as_the_base(
    settings: Settings, state: State, admin: Caller, measured: dict[str, str]
) -> None:
    row = rows_of(settings, evidence(state, admin))[("fine_tuned", "local")]
    assert row.usd_per_query is not None
    assert row.usd_per_query.standing == "assumed"
    assert "no adapter was measured" in row.usd_per_query.source
    run_id = ledger.record(state, admin.project_id, "throughput", {**BASE, "is_adapter": True})
    row = rows_of(settings, evidence(state, admin))[("fine_tuned", "local")]
    assert row.usd_per_query is not None
    assert (row.usd_per_query.standing, row.usd_per_query.source) == ("measured", run_id)


def test_all_hours_of_the_ledger_are_told_serving_by_used_and_idle(
    state: State, admin: Caller, measured: dict[str, str]
) -> None:
    ledger.record(state, admin.project_id, "reembed", {"seconds": 900.0})
    ledger.record(state, admin.project_id, "index_build", {"seconds": 900.0})
    for hour in (0, 3600):
        ledger.add_to_hour(state, admin.project_id, "serving", hour, {"seconds": 3600.0, "busy_seconds": 900.0})
    spent = {one.work: (one.runs, one.hours) for one in evidence(state, admin).spent}
    assert spent == {
        "training of adapters": (1, 2.0),
        "encoding and index building": (3, 1.0),
        "serving, answering": (2, 0.5),
        "serving, idle": (2, 1.5),
    }


@pytest.mark.parametrize(
    "change", [{"name": "NVIDIA H200"}, {"device": "cuda", "name": "NVIDIA H200"}, {"cores": 10_000}]
)
def test_figures_of_other_hardware_are_never_taken(
    settings: Settings, state: State, admin: Caller, measured: dict[str, str], change: dict[str, Any]
) -> None:
    with state.session() as session:
        for entry in session.query(LedgerEntry):
            entry.hardware = {**entry.hardware, **change}
    found = evidence(state, admin)
    assert (found.throughputs, found.training, found.indexing, found.spent) == ((), None, None, ())
    row = rows_of(settings, found)[("hybrid", "local")]
    assert (row.set_up_usd, row.usd_per_query, row.usd_per_month) == (None, None, None)
    told = " ".join(one.reason for one in row.missing)
    assert "no throughput measured on" in told
    assert "local-llm cost measure" in told
    assert "--training-hours" in told
    assert "--indexing-hours" in told


def test_a_processors_figures_are_not_a_gpus(
    settings: Settings, state: State, admin: Caller, measured: dict[str, str]
) -> None:
    h200 = Whereabouts.of(load_prices(settings).gpu("H200"))
    assert gather(state, admin.project_id, h200).throughputs == ()
    with state.session() as session:
        for entry in session.query(LedgerEntry):
            entry.hardware = {**entry.hardware, "device": "cuda", "name": "NVIDIA H200", "cores": 64}
    assert len(gather(state, admin.project_id, h200).throughputs) == 1
    assert gather(state, admin.project_id, h200, gpus=2).throughputs == ()


def test_what_is_given_stands_in_for_what_was_not_measured_and_is_marked(
    settings: Settings, state: State, admin: Caller
) -> None:
    row = rows_of(
        settings, evidence(state, admin), assumed_throughput=Throughput(5e-5, 5e-4), assumed_training_hours=2
    )[("fine_tuned", "local")]
    assert row.set_up_usd == exactly(7.2, "assumed", "2 h as given")
    assert row.usd_per_query is not None
    assert row.usd_per_query.standing == "assumed"


def test_unpriced_is_never_zero(settings: Settings, state: State, admin: Caller, measured: dict[str, str]) -> None:
    here = Here(exactly(1.0, "assumed", ""), evidence(state, admin))
    prices = load_prices(settings)
    offers = [
        offer_of(prices, name, encoder="text-embedding-3-small", today=DAY)
        for name in ("gpt-4o-mini", "gpt-6-luna")
    ]
    rows = {(row.strategy, row.where): row for row in compare(ASKED, here, offers)}
    untrained = rows[("fine_tuned", "gpt-4o-mini")]
    assert (untrained.set_up_usd, untrained.usd_per_month) == (None, None)
    assert "hosted_training_usd_per_million_tokens" in untrained.missing[0].reason
    luna = rows[("fine_tuned", "gpt-6-luna")]
    assert (luna.usd_per_query, luna.usd_per_month) == (None, None)
    assert luna.missing[0].reason == "unpriced: no price of gpt-6-luna fine-tuned"


def test_a_platform_that_trains_no_more_has_no_price_of_training(
    settings: Settings, state: State, admin: Caller, measured: dict[str, str]
) -> None:
    offer = offer_of(
        load_prices(settings),
        "ft:gpt-4o-mini-2024-07-18",
        encoder=None,
        today=datetime.date(2027, 1, 7),
        training_usd_per_million_tokens=3.0,
    )
    assert offer.name == "gpt-4o-mini"
    rows = compare(ASKED, Here(exactly(1.0, "assumed", ""), evidence(state, admin)), [offer])
    row = next(row for row in rows if (row.strategy, row.where) == ("fine_tuned", "gpt-4o-mini"))
    assert row.set_up_usd is None
    assert "cannot be trained any more since 2027-01-06" in row.missing[0].reason


def test_an_update_of_some_documents_costs_their_share(
    settings: Settings, state: State, admin: Caller, measured: dict[str, str]
) -> None:
    asked = Asked(ASKED.traffic, 1000, 1, documents_per_update=40)
    rows = rows_of(settings, evidence(state, admin), asked)
    # 40 of 400 documents: a tenth of 1.80, and of 0.02
    assert rows[("rag", "local")].update_usd.expected == pytest.approx(0.18)
    assert rows[("rag", "gpt-4o-mini")].update_usd.expected == pytest.approx(0.002)


def test_no_queries_are_told_and_divided_by_nobody(
    settings: Settings, state: State, admin: Caller, measured: dict[str, str]
) -> None:
    row = rows_of(settings, evidence(state, admin), Asked(ASKED.traffic, 0), extras=Extras(10))[("base", "local")]
    assert row.usd_per_query is None
    assert row.missing[0].reason == "no queries a month: nothing to divide by; set --queries-per-month"
    assert row.usd_per_month.expected == pytest.approx(730 * 3.6 + 10)


class TestAnswers:
    def test_latency_and_acceptance_come_from_evaluations(
        self, settings: Settings, state: State, admin: Caller, tmp_path: Path
    ) -> None:
        path = tmp_path / "evaluations.json"
        path.write_text(
            json.dumps(
                [{"strategy": "rag", "latency_p50_seconds": 1.5, "latency_p95_seconds": 3, "run_id": "led_7"}]
            )
        )
        answers = read_answers(path)
        assert answers == (
            AnswerEvidence(strategy="rag", latency_p50_seconds=1.5, latency_p95_seconds=3, run_id="led_7"),
        )
        latency = rows_of(settings, evidence(state, admin, answers=answers))[("rag", "local")].latency_seconds
        assert latency is not None
        assert (latency.expected, latency.high, latency.source) == (1.5, 3, "led_7")

    @pytest.mark.parametrize("content", ['[{"strategy": "rag"}]', "[", '[{"strategy": "x", "run_id": "1"}]'])
    def test_a_file_with_anything_wrong_is_refused(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "evaluations.json"
        path.write_text(content)
        with pytest.raises(InvalidInputError, match=r"evaluations\.json: "):
            read_answers(path)


class TestArticle:
    def check(self, settings: Settings, training: float | None = None) -> dict[str, tuple[str, str]]:
        made = check_article(
            load_prices(settings), input_tokens=500, output_tokens=300, training_usd_per_million_tokens=training
        )
        return {one.factor: (one.verdict, one.because) for one in made}

    def test_what_a_training_costs_does_not_follow_without_a_price(self, settings: Settings) -> None:
        assert self.check(settings)["set-up, fine-tuning"][0] == "cannot"
        # 25 / 2.5 and 100 / 2.5
        verdict, because = self.check(settings, 2.5)["set-up, fine-tuning"]
        assert verdict == "follows"
        assert because.startswith("10.0 million to 40.0 million tokens")

    def test_indexing_for_fifty_dollars_takes_billions_of_tokens(self, settings: Settings) -> None:
        # 50 / 0.02 million
        assert tokens_for(50, usd_per_million_tokens=0.02) == pytest.approx(2.5e9)
        assert self.check(settings)["set-up, RAG"][0] == "only from"

    def test_a_rag_query_needs_far_longer_passages_than_five_usual_ones(self, settings: Settings) -> None:
        # (0.003 - 0.000075 - 0.00018) / 0.15 x 10^6
        prices = load_prices(settings).model("gpt-4o-mini").token_prices
        assert context_tokens_for(0.003, prices, input_tokens=500, output_tokens=300) == pytest.approx(18_300)
        verdict, because = self.check(settings)["a query, RAG"]
        assert verdict == "only from"
        # (500 + 5 x 512) x 0.15 + 300 x 0.60 = 459 + 180 = 639
        assert "5 of 512 tokens cost $0.000639 a query" in because

    def test_ranges_of_both_together_are_sums(self, settings: Settings) -> None:
        checked = self.check(settings)
        assert checked["set-up, hybrid"] == (
            "follows",
            "fine-tuning and RAG together are $75 to $700, told to one digit",
        )
        assert checked["a query, hybrid"][0] == "follows"
        assert {verdict for factor, (verdict, _) in checked.items() if factor.startswith("latency")} == {"cannot"}


class TestCommands:
    @pytest.fixture(autouse=True)
    def home(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCAL_LLM_HOME", str(settings.home))

    def json(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
        assert run(["cost", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    H200 = ("--gpu", "H200", "--gpu-usd-per-hour", "3.50", "--input-tokens", "2000", "--output-tokens", "300")

    def test_the_worked_example(self, capsys: pytest.CaptureFixture[str]) -> None:
        hosted = ("--hosted", "ft:gpt-4o-mini-2024-07-18", "--hosted", "gpt-6-luna")
        found = self.json(capsys, "breakeven", *self.H200, *hosted)
        rates = [line["expected"]["requests_per_second"] for line in found["break_even"]]
        assert [round(rate, 2) for rate in rates] == [1.01, 2.78]
        assert {line["expected"]["reach"] for line in found["break_even"]} == {"unknown"}

    def test_a_rate_beyond_the_capacity_is_unreachable(self, capsys: pytest.CaptureFixture[str]) -> None:
        # 2,000 / 20,000 + 300 / 1,000 = 0.4 s: 2.5 requests/s
        rates = ("--prefill-tokens-per-second", "20000", "--decode-tokens-per-second", "1000")
        found = self.json(
            capsys, "breakeven", *self.H200, *rates,
            "--hosted", "ft:gpt-4o-mini-2024-07-18", "--hosted", "gpt-6-luna",
        )  # fmt: skip
        assert [line["expected"]["reach"] for line in found["break_even"]] == ["reachable", "unreachable"]
        assert found["break_even"][0]["expected"]["utilisation"] == pytest.approx(1.0127 / 2.5, rel=1e-4)

    def test_a_rent_between_two_ends_gives_a_span(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = self.json(capsys, "breakeven", "--gpu", "H200", *self.H200[4:], "--hosted", "gpt-6-luna")
        line = found["break_even"][0]
        # 2.50 and 7.00 / 3600 / 0.00035
        assert line["low"]["requests_per_second"] == pytest.approx(1.98413, rel=1e-5)
        assert line["high"]["requests_per_second"] == pytest.approx(5.55556, rel=1e-5)

    def test_accepted_answers_count_where_both_sides_were_evaluated(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "evaluations.json"
        rows = [{"strategy": "base", "accepted_rate": 0.6, "run_id": "a"}]
        rows.append({"strategy": "base", "where": "gpt-6-luna", "accepted_rate": 0.8, "run_id": "b"})
        path.write_text(json.dumps(rows))
        found = self.json(
            capsys, "breakeven", *self.H200, "--hosted", "gpt-6-luna", "--evidence", str(path)
        )  # fmt: skip
        # 2.7778 x 0.8 / 0.6
        assert found["break_even"][0]["expected"]["requests_per_second"] == pytest.approx(3.7037, rel=1e-4)

    def test_months_until_a_bought_machine_has_paid_for_itself(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = self.json(
            capsys, "breakeven", *self.H200, "--hosted", "gpt-6-luna", "--basis", "own", "--purchase-usd", "30000",
            "--power-watts", "1000", "--pue", "1.5", "--electricity-usd-per-kwh", "0.2", "--hosting-usd-per-month",
            "100", "--queries-per-month", "5000000",
        )  # fmt: skip
        # 5 million x 0.00035 = 1,750; running 1.5 x 0.2 x 730 + 100 = 319; 30,000 / 1,431
        assert found["break_even"][0]["months_to_pay_back"] == pytest.approx(30_000 / 1_431)

    def test_more_queries_than_it_can_do_pay_nothing_back(self, capsys: pytest.CaptureFixture[str]) -> None:
        # 2.5 requests/s are 6.57 million a month
        found = self.json(
            capsys, "breakeven", *self.H200, "--hosted", "gpt-6-luna", "--purchase-usd", "30000",
            "--power-watts", "1000", "--electricity-usd-per-kwh", "0.2", "--queries-per-month", "6600000",
            "--prefill-tokens-per-second", "20000", "--decode-tokens-per-second", "1000",
        )  # fmt: skip
        line = found["break_even"][0]
        assert (line["pays_back"], line["months_to_pay_back"]) == ("beyond its capacity", None)

    def test_where_nothing_was_accepted_there_is_no_price_of_it(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "evaluations.json"
        rows = [{"strategy": "base", "accepted_rate": 0, "run_id": "a"}]
        rows.append({"strategy": "base", "where": "gpt-6-luna", "accepted_rate": 0.8, "run_id": "b"})
        path.write_text(json.dumps(rows))
        found = self.json(capsys, "breakeven", *self.H200, "--hosted", "gpt-6-luna", "--evidence", str(path))
        (line,) = found["break_even"]
        assert (line["expected"], line["accepted"]) == (
            None,
            "0% here, 80% hosted: no accepted answer has no price",
        )

    def test_batches_have_prices_of_their_own_or_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        hosted = ("--hosted", "gpt-4o-mini", "--hosted", "gpt-6-luna", "--batch")
        cached = ("--cached-tokens", "500")
        found = self.json(capsys, "breakeven", *self.H200, *hosted, *cached)["break_even"]
        # 2,000 x 0.075 + 300 x 0.30 = 240 a million, nothing off for what the cache holds
        assert found[0]["hosted_usd_per_request"] == pytest.approx(0.00024)
        assert (found[1]["hosted_usd_per_request"], found[1]["expected"]) == (None, None)
        rates = ("--prefill-tokens-per-second", "20000", "--decode-tokens-per-second", "1000")
        made = self.json(capsys, "compare", *self.H200, *rates, *hosted, "--queries-per-month", "1000000")
        rows = {(row["strategy"], row["where"]): row for row in made["rows"]}
        assert rows[("base", "gpt-4o-mini")]["usd_per_month"]["expected"] == pytest.approx(240)
        assert rows[("base", "gpt-6-luna")]["usd_per_query"] is None
        told = [one["reason"] for one in rows[("base", "gpt-6-luna")]["missing"]]
        assert "unpriced: no price of gpt-6-luna in batches" in told
        assert "a batch is answered within hours" in told

    def test_a_model_without_a_price_of_answers_is_unpriced_and_the_others_are_told(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row = {"model": "new", "input_usd_per_million_tokens": 0.1, "as_of": "2026-11", "source": "ours"}
        own = tmp_path / "prices.json"
        own.write_text(json.dumps({"hosted": [row]}))
        monkeypatch.setenv("LOCAL_LLM_COST__PRICES_FILE", str(own))
        found = self.json(capsys, "breakeven", *self.H200, "--hosted", "new", "--hosted", "gpt-6-luna")
        first, second = found["break_even"]
        assert (first["hosted_usd_per_request"], first["expected"], first["accepted"]) == (None, None, "unpriced")
        assert second["expected"]["requests_per_second"] == pytest.approx(2.78, abs=0.005)

    def test_the_plot_is_drawn(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "plot.svg"
        rates = ("--prefill-tokens-per-second", "20000", "--decode-tokens-per-second", "1000")
        self.json(capsys, "breakeven", *self.H200, *rates, "--hosted", "gpt-6-luna", "--plot", str(path))
        text = path.read_text()
        for label in ("utilisation", "tokens of context", "change of the price of an hour", "gpt-6-luna"):
            assert label in text

    def test_the_table_tells_what_it_rests_on(
        self, capsys: pytest.CaptureFixture[str], settings: Settings, state: State, measured: dict[str, str]
    ) -> None:
        assert run(["cost", "compare", "--queries-per-month", "1000", "--hosted", "gpt-6-luna", "--article"]) == 0
        text = capsys.readouterr().out
        for part in (
            measured["throughput"],
            "utilisation follows from the queries",
            load_prices(settings).sha256,
            "unpriced: no price of gpt-6-luna fine-tuned",
            "training of adapters: 2.000 h in 1 entries of the ledger",
            "cost.machine_usd_per_hour",
            "a query, RAG",
        ):
            assert part in text

    def test_models_that_end_are_warned_about(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["cost", "breakeven", *self.H200, "--hosted", "gpt-4o-mini"]) == 0
        told = capsys.readouterr().err
        assert "gpt-4o-mini: " in told
        assert "2027-01-14" in told

    @pytest.mark.parametrize(
        ("arguments", "told", "mended"),
        [
            (("--gpu", "B300"), "no price for a GPU 'B300'", "--gpu-usd-per-hour"),
            (("--hosted", "gpt-7"), "no price for 'gpt-7'", "cost prices import"),
            (("--utilisation", "1.2"), "utilisation is 1.2", "--utilisation"),
            (("--input-tokens", "-5"), "input_tokens is -5", "--input-tokens"),
            (("--training-hours", "-1"), "training_hours is -1", "--training-hours"),
            (("--basis", "own", "--gpu", "H200"), "purchase price of H200 is unpriced", "--purchase-usd"),
            (("--basis", "electricity", "--gpu", "H200"), "electricity is not known", "--electricity-usd-per-kwh"),
            (("--prefill-tokens-per-second", "9"), "one of two rates", "--decode-tokens-per-second"),
            (("--gpus", "0"), "gpus is 0", "--gpus"),
            (("--staff-usd-per-month", "-1"), "staff_usd_per_month is -1", "--staff-usd-per-month"),
            (("--documents-per-update", "-1"), "documents_per_update is -1", "--documents-per-update"),
        ],
    )
    def test_bad_input_is_told_in_one_message_with_what_to_set(
        self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str, mended: str
    ) -> None:
        rates = ("--decode-tokens-per-second", "100", "--prefill-tokens-per-second", "1000")
        given = () if "--prefill-tokens-per-second" in arguments else rates
        assert run(["cost", "compare", "--queries-per-month", "1000", *given, *arguments]) == 1
        out = capsys.readouterr()
        assert out.out == ""
        assert told in out.err
        assert mended in out.err

    def test_prices_are_imported_listed_and_checked(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "map.json"
        path.write_text(
            json.dumps({"m": {"mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}})
        )
        options = ("--as-of", "2020-01", "--source", "map 1")
        assert self.json(capsys, "prices", "import", str(path), *options)["imported"] == ["m"]
        (row,) = [row for row in self.json(capsys, "prices", "list")["hosted"] if row["model"] == "m"]
        assert (row["output_usd_per_million_tokens"], row["training_usd_per_million_tokens"]) == (2, None)
        assert any(
            line.startswith("m: the price is from") for line in self.json(capsys, "prices", "check")["warnings"]
        )
        assert run(["cost", "prices", "import", str(path), "--as-of", "lately", "--source", "x"]) == 1
        assert "--as-of" in capsys.readouterr().err
