"""local-llm cost compare, breakeven and prices, as they are run."""

import json
from pathlib import Path
from typing import Any

import pytest

from local_llm.cli.app import run
from local_llm.costs.prices import load_prices
from local_llm.settings import Settings
from local_llm.state import State


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

    def test_an_hour_here_is_that_of_all_gpus_of_the_engine(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = ("breakeven", *self.H200[2:], "--hosted", "gpt-6-luna")
        (one,) = self.json(capsys, *asked)["break_even"]
        for name, number in (("GPUS", "2"), ("PIPELINE_PARALLEL", "3"), ("DATA_PARALLEL", "4")):
            monkeypatch.setenv(f"LOCAL_LLM_ENGINE__{name}", number)
        (all_of_them,) = self.json(capsys, *asked)["break_even"]
        rate, rates = (line["expected"]["requests_per_second"] for line in (one, all_of_them))
        assert rates == pytest.approx(24 * rate)

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

    def test_how_a_hosted_model_came_to_its_answers_need_not_be_ours(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "evaluations.json"
        rows = [{"strategy": "rag", "accepted_rate": 0.6, "run_id": "a"}]
        rows.append({"strategy": "base", "where": "gpt-6-luna", "accepted_rate": 0.8, "run_id": "b"})
        path.write_text(json.dumps(rows))
        options = ("--hosted", "gpt-6-luna", "--evidence", str(path), "--strategy", "rag")
        (line,) = self.json(capsys, "breakeven", *self.H200, *options)["break_even"]
        assert line["expected"]["requests_per_second"] == pytest.approx(3.7037, rel=1e-4)
        assert line["runs"] == ["a", "b"]

    def test_what_costs_nothing_there_is_never_dearer(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free = {"input_usd_per_million_tokens": 0, "output_usd_per_million_tokens": 0}
        own = tmp_path / "prices.json"
        own.write_text(json.dumps({"hosted": [{"model": "free", **free, "as_of": "2026-11", "source": "ours"}]}))
        monkeypatch.setenv("LOCAL_LLM_COST__PRICES_FILE", str(own))
        options = ("--hosted", "free", "--hosted", "gpt-6-luna", "--plot", str(tmp_path / "plot.svg"))
        first, second = self.json(capsys, "breakeven", *self.H200, *options)["break_even"]
        assert (first["hosted_usd_per_request"], first["expected"]) == (0, None)
        assert first["accepted"] == "costs nothing there: no machine is cheaper"
        assert second["expected"]["requests_per_second"] == pytest.approx(2.78, abs=0.005)

    def test_an_adapter_that_was_not_measured_has_the_capacity_of_its_base_here_too(
        self, capsys: pytest.CaptureFixture[str], measured: dict[str, str]
    ) -> None:
        hosted = ("--hosted", "gpt-6-luna", "--strategy", "hybrid", "--input-tokens", "2000")
        found = self.json(capsys, "breakeven", *hosted, "--output-tokens", "300")
        # 2,000 x 0.00005 + 300 x 0.0005 = 0.25 s
        assert found["break_even"][0]["expected"]["capacity_requests_per_second"] == pytest.approx(4)
        assert any(line.startswith("capacity assumed on ") for line in found["assumptions"])

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
