"""Prices: dated, sourced, hashed; the user's rows before the shipped ones; what is unpriced is not free."""

import datetime
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from local_llm.costs.litellm_map import read_litellm_map
from local_llm.costs.prices import (
    SHIPPED,
    HostedModel,
    PriceFile,
    load_prices,
    merged,
    read_price_file,
    warnings,
    write_price_file,
)
from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.settings import Settings, load_settings

DAY = datetime.date(2026, 11, 23)
ROW: dict[str, Any] = {
    "model": "gpt-6-luna",
    "input_usd_per_million_tokens": 0.2,
    "output_usd_per_million_tokens": 0.9,
    "as_of": "2026-12-01",
    "source": "our contract",
}


def own(settings: Settings, **content: Any) -> Path:
    settings.home.mkdir(exist_ok=True)
    path = settings.home / "prices.json"
    path.write_text(json.dumps(content))
    return path


def hosted(**changes: Any) -> HostedModel:
    return HostedModel.model_validate({**ROW, **changes})


def test_the_shipped_prices_are_those_seen() -> None:
    rows = {row.model: row for row in read_price_file(SHIPPED).hosted}
    seen = {
        name: (
            row.input_usd_per_million_tokens,
            row.cached_input_usd_per_million_tokens,
            row.output_usd_per_million_tokens,
        )
        for name, row in rows.items()
    }
    assert seen == {
        "gpt-4o-mini": (0.15, 0.075, 0.60),
        "ft:gpt-4o-mini-2024-07-18": (0.30, 0.15, 1.20),
        "gpt-4.1-mini": (0.40, 0.10, 1.60),
        "ft:gpt-4.1-mini-2025-04-14": (0.80, 0.20, 3.20),
        "gpt-6-luna": (0.10, 0.01, 0.50),
        "text-embedding-3-small": (0.02, None, None),
    }
    assert {row.training_usd_per_million_tokens for row in rows.values()} == {None}


def test_every_fine_tuned_model_named_has_a_row() -> None:
    file = read_price_file(SHIPPED)
    named = {row.fine_tuned_model for row in file.hosted} - {None}
    assert named
    assert named <= {row.model for row in file.hosted}


def test_a_row_of_the_user_takes_the_place_of_the_shipped_one(settings: Settings) -> None:
    before = load_prices(settings)
    own(settings, hosted=[ROW])
    after = load_prices(settings)
    assert after.model("gpt-6-luna").output_usd_per_million_tokens == 0.9
    # The row as a whole: the shipped price for cached tokens is of another source.
    assert after.model("gpt-6-luna").cached_input_usd_per_million_tokens is None
    assert after.model("gpt-4o-mini") == before.model("gpt-4o-mini")
    assert after.sha256 != before.sha256


def test_the_hash_is_that_of_the_rows_not_of_their_file(settings: Settings) -> None:
    before = load_prices(settings)
    shipped = json.loads(SHIPPED.read_text())
    own(settings, hosted=[next(row for row in shipped["hosted"] if row["model"] == "gpt-6-luna")])
    assert load_prices(settings).sha256 == before.sha256


def test_a_named_file_goes_before_the_one_at_home(settings: Settings, tmp_path: Path) -> None:
    own(settings, hosted=[ROW])
    named = tmp_path / "mine.json"
    named.write_text(json.dumps({"hosted": [{**ROW, "output_usd_per_million_tokens": 0.7}]}))
    with_it = load_settings(
        environment={"LOCAL_LLM_HOME": str(settings.home)}, overrides={"cost.prices_file": named}
    )
    assert load_prices(with_it).model("gpt-6-luna").output_usd_per_million_tokens == 0.7


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"hosted": [{**ROW, "price": 1}]}, r"hosted\.0\.price: Extra inputs"),
        ({"hosted": [{**ROW, "input_usd_per_million_tokens": -1}]}, "greater than or equal to 0"),
        ({"hosted": [{key: ROW[key] for key in ROW if key != "source"}]}, r"hosted\.0\.source: Field required"),
        ({"hosted": [{**ROW, "as_of": "2026-13"}]}, r"hosted\.0\.as_of"),
        ({"hosted": [{**ROW, "as_of": "lately"}]}, r"hosted\.0\.as_of"),
        ({"hosted": [ROW, ROW]}, "two rows of gpt-6-luna"),
        ([1], "Input should be an object"),
    ],
)
def test_a_file_with_anything_wrong_is_refused(settings: Settings, content: Any, told: str) -> None:
    settings.home.mkdir()
    (settings.home / "prices.json").write_text(json.dumps(content))
    with pytest.raises(InvalidInputError, match=told):
        load_prices(settings)


def test_a_model_without_a_price_is_told_with_those_that_have_one(settings: Settings) -> None:
    with pytest.raises(NotFoundError, match=r"no price for 'gpt-7'; priced are gpt-4o-mini, .*gpt-6-luna") as told:
        load_prices(settings).model("gpt-7")
    assert "local-llm cost prices import" in str(told.value.hint)
    with pytest.raises(NotFoundError, match="no price for a GPU 'B300'"):
        load_prices(settings).gpu("B300")


def test_a_gpu_is_found_by_its_drivers_name(settings: Settings) -> None:
    assert load_prices(settings).gpu("NVIDIA A100-SXM4-80GB").gpu == "A100-80"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (hosted(as_of="2026-11-23"), []),
        (hosted(as_of="2026-05-27"), []),  # 180 days
        (hosted(as_of="2026-05-26"), ["181 days old"]),
        (hosted(as_of="2026-05"), ["206 days old"]),  # of a month its first day
        (hosted(as_of="2026-11", end_of_life="2026-11-24"), ["will be shut down on 2026-11-24"]),
        (hosted(as_of="2026-11", end_of_life="2026-11-23"), ["shut down on 2026-11-23: nobody can buy it"]),
        (hosted(as_of="2026-11", no_new_training_after="2026-11-22"), ["no new training since 2026-11-22"]),
        (hosted(as_of="2026-11", no_new_training_after="2026-11-23"), []),
    ],
)
def test_prices_past_their_date_are_warned_about(row: HostedModel, told: list[str]) -> None:
    lines = warnings([row], DAY)
    assert len(lines) == len(told)
    for line, part in zip(lines, told, strict=True):
        assert part in line


MAP: dict[str, Any] = {
    "sample_spec": {"mode": "one of ...", "input_cost_per_token": 0.0},
    "gpt-4o-mini": {
        "mode": "chat",
        "input_cost_per_token": 1.5e-07,
        "cache_read_input_token_cost": 7.5e-08,
        "output_cost_per_token": 6e-07,
        "input_cost_per_token_batches": 7.5e-08,
        "output_cost_per_token_batches": 3e-07,
        "deprecation_date": "2027-01-14",
    },
    "ft:gpt-4o-mini-2024-07-18": {
        "mode": "chat",
        "input_cost_per_token": 3e-07,
        "output_cost_per_token": 1.2e-06,
    },
    "small-encoder": {"mode": "embedding", "input_cost_per_token": 2e-08, "output_cost_per_token": 0.0},
    "nobody-knows": {"mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
    "painter": {"mode": "image_generation", "input_cost_per_token": 1e-6},
}


class TestImport:
    def read(self, tmp_path: Path, *models: str, content: Any = None):
        path = tmp_path / "map.json"
        path.write_text(json.dumps(MAP if content is None else content))
        return read_litellm_map(path, models, as_of="2026-11-23", source="map 1")

    def test_prices_are_those_of_the_map_a_million(self, tmp_path: Path) -> None:
        rows = {row.model: row for row in self.read(tmp_path).file.hosted}
        mini = rows["gpt-4o-mini"]
        assert mini.token_prices == hosted(
            input_usd_per_million_tokens=0.15,
            cached_input_usd_per_million_tokens=0.075,
            output_usd_per_million_tokens=0.6,
        ).token_prices  # fmt: skip
        assert (mini.batch_input_usd_per_million_tokens, mini.batch_output_usd_per_million_tokens) == (0.075, 0.3)
        assert (mini.fine_tuned_model, mini.end_of_life) == (
            "ft:gpt-4o-mini-2024-07-18",
            datetime.date(2027, 1, 14),
        )
        assert (mini.as_of, mini.source) == ("2026-11-23", "map 1")
        assert (rows["small-encoder"].kind, rows["small-encoder"].output_usd_per_million_tokens) == (
            "embedding",
            None,
        )

    def test_zero_in_the_map_is_no_price(self, tmp_path: Path) -> None:
        assert self.read(tmp_path).left_out == ("nobody-knows", "painter")
        with pytest.raises(InvalidInputError, match="no price for tokens of nobody-knows"):
            self.read(tmp_path, "nobody-knows")

    def test_only_what_is_named_is_taken(self, tmp_path: Path) -> None:
        assert [row.model for row in self.read(tmp_path, "small-encoder").file.hosted] == ["small-encoder"]
        with pytest.raises(NotFoundError, match="no price of gpt-7"):
            self.read(tmp_path, "gpt-7")

    @pytest.mark.parametrize("content", [[1], {"a": 1}])
    def test_another_file_is_refused(self, tmp_path: Path, content: Any) -> None:
        with pytest.raises(InvalidInputError, match="not LiteLLM's price map"):
            self.read(tmp_path, content=content)

    def test_what_was_imported_is_read_again(self, tmp_path: Path, settings: Settings) -> None:
        path = settings.home / "prices.json"
        write_price_file(path, merged(PriceFile(), self.read(tmp_path).file))
        assert load_prices(settings).model("small-encoder").input_usd_per_million_tokens == 0.02

    def test_the_map_of_the_installed_package_is_read(self) -> None:
        litellm = importlib.util.find_spec("litellm")
        assert litellm is not None
        assert litellm.origin is not None
        path = Path(litellm.origin).parent / "model_prices_and_context_window_backup.json"
        rows = {row.model: row for row in read_litellm_map(path, [], as_of="2026-11", source="it").file.hosted}
        # As shipped: the two were read from different versions of the map.
        shipped = {row.model: row for row in read_price_file(SHIPPED).hosted}
        for name in ("gpt-4o-mini", "ft:gpt-4o-mini-2024-07-18", "gpt-4.1-mini", "ft:gpt-4.1-mini-2025-04-14"):
            assert rows[name].token_prices == shipped[name].token_prices
            assert rows[name].fine_tuned_model == shipped[name].fine_tuned_model
            assert rows[name].batch_input_usd_per_million_tokens == shipped[name].batch_input_usd_per_million_tokens
