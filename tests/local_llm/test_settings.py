from pathlib import Path

import pytest

from local_llm.errors import SettingsError
from local_llm.settings import load_settings


def load(tmp_path: Path, text: str = "", **variables: str):
    (tmp_path / "settings.toml").write_text(text)
    return load_settings(environment={"LOCAL_LLM_HOME": str(tmp_path), **variables})


def test_options_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    text = "[server]\nport = 1\nhost = '127.0.0.2'\n[engine]\nmax_loras = 7"
    (tmp_path / "settings.toml").write_text(text)
    variables = {"LOCAL_LLM_HOME": str(tmp_path), "LOCAL_LLM_SERVER__PORT": "2", "LOCAL_LLM_SERVER__HOST": "::1"}
    settings = load_settings(environment=variables, overrides={"server.port": 3, "server.host": None})
    assert (settings.server.port, settings.server.host, settings.engine.max_loras) == (3, "::1", 7)


def test_everything_wrong_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, "[server]\nport = 70000\ncolour = 1\n[engine]\nmax_lora_rank = 17", LOCAL_LLM_NOPE="1")
    for part in (
        "server.port = 70000",
        "server.colour",
        "engine.max_lora_rank = 17",
        "nope: there is no such setting",
    ):
        assert part in str(caught.value)


def test_a_list_is_written_as_in_toml(tmp_path: Path) -> None:
    settings = load(tmp_path, LOCAL_LLM_ENGINE__ARGUMENTS="['--dtype', 'float32']")
    assert settings.engine.arguments == ["--dtype", "float32"]


def test_a_named_file_that_is_missing_or_broken_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(tmp_path / "nowhere.toml", environment={})
    with pytest.raises(SettingsError, match="not TOML"):
        load(tmp_path, "port = = 3")


def test_a_zero_is_a_value(tmp_path: Path) -> None:
    assert load(tmp_path, "[server]\nport = 0").server.port == 0
    assert load(tmp_path, "[cost]\nmachine_usd_per_hour = 0").cost.machine_usd_per_hour == 0


def test_a_number_or_auto_may_come_from_a_variable(tmp_path: Path) -> None:
    assert load(tmp_path).engine.max_lora_rank == "auto"
    assert load(tmp_path).engine.largest_lora_rank == 512
    engine = load(tmp_path, LOCAL_LLM_ENGINE__MAX_LORA_RANK="32", LOCAL_LLM_ENGINE__MAX_LORAS="5").engine
    assert (engine.max_lora_rank, engine.largest_lora_rank, engine.max_loras) == (32, 32, 5)
    for text in ("max_loras = 0", "max_loras = true", "max_loras = '4.5'", "max_lora_rank = '²'"):
        with pytest.raises(SettingsError, match=text.split()[0]):
            load(tmp_path, f"[engine]\n{text}")
