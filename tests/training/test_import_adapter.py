"""Adapters that PEFT made elsewhere: taken if the engine can serve them on this base, else nothing is left."""

import json
from pathlib import Path

import pytest

from local_llm.adapters import AdapterRegistry
from local_llm.cli.app import run
from local_llm.models import Model
from local_llm.permissions import Caller
from local_llm.servable import CONFIG, WEIGHTS
from local_llm.settings import Settings
from local_llm.state import State
from training.quiet import quiet_libraries

from .conftest import TINY
from .peft_adapters import save_adapter


@pytest.fixture(autouse=True)
def home(settings: Settings, tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_LLM_HOME", str(settings.home))
    monkeypatch.setenv("LOCAL_LLM_ENGINE__MODEL", TINY)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"target_modules": "all-linear", "r": 16},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 32}},
    ],
)
def test_what_peft_made_on_this_base_gets_a_name(
    tiny_folder: Path, tmp_path: Path, settings: Settings, state: State, admin: Caller, capsys, config: dict
) -> None:
    folder = save_adapter(tiny_folder, tmp_path / "adapter", **config)
    assert run(["models", "import", str(folder), "--suffix", "made-elsewhere", "--json"]) == 0
    name = json.loads(capsys.readouterr().out)["name"]
    assert name.startswith("ft:tiny:local:made-elsewhere:")
    registry = AdapterRegistry(settings, state)
    registry.verify(registry.get(name, admin))


def test_what_the_engine_could_not_serve_is_refused_and_leaves_nothing(
    tiny_folder: Path,
    tmp_path: Path,
    settings: Settings,
    state: State,
    admin: Caller,
    capsys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_LLM_ENGINE__MAX_LORA_RANK", "16")

    def refused(folder: Path, reason: str) -> None:
        assert run(["models", "import", str(folder)]) == 1
        told = capsys.readouterr()
        assert (told.out, told.err.startswith("error: ")) == ("", True)
        assert reason in told.err
        assert AdapterRegistry(settings, state).list(admin) == []
        assert list(settings.place.adapters.iterdir()) == []

    refused(save_adapter(tiny_folder, tmp_path / "dora", use_dora=True), "it uses DoRA")
    refused(save_adapter(tiny_folder, tmp_path / "rank", r=32), "its rank is 32; the engine serves up to 16")
    refused(save_adapter(tiny_folder, tmp_path / "bias", bias="lora_only"), "it trains biases (lora_only)")
    refused(save_adapter(tiny_folder, tmp_path / "saved", modules_to_save=["lm_head"]), "replaces whole modules")
    refused(save_adapter(other_base(tmp_path), tmp_path / "other"), "does not fit tiny")

    whole = save_adapter(tiny_folder, tmp_path / "whole")
    weights = (whole / WEIGHTS).read_bytes()
    (whole / WEIGHTS).write_bytes(weights[:-100])
    refused(whole, "no whole safetensors file")
    (whole / WEIGHTS).unlink()
    refused(whole, f"{WEIGHTS} not found")
    (whole / "adapter_model.bin").write_bytes(weights)
    refused(whole, "pickle")
    (whole / WEIGHTS).write_bytes(weights)
    (whole / CONFIG).write_text("{")
    refused(whole, "no adapter's configuration")


def other_base(tmp_path: Path) -> Path:
    """A model of the tiny one's layers, but wider."""
    with quiet_libraries():
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes = {"vocab_size": 300, "hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 2}
        model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))
        model.save_pretrained(tmp_path / "other-base")
    return tmp_path / "other-base"
