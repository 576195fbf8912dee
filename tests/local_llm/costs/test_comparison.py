"""The comparison: figures of this hardware from the ledger, all others assumed or unknown, and said to be."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from local_llm import ledger
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

from .conftest import BASE

DAY = datetime.date(2026, 11, 23)
ASKED = Asked(Traffic(500, 300, context_tokens=1_500), queries_per_month=1_000_000, updates_per_month=2)


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
