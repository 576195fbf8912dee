"""A merged model answers as base and adapter did, or does not come to be."""

import json
from pathlib import Path
from typing import Any

import pytest

from local_llm.adapters import AdapterRegistry, AdapterRun
from local_llm.cli.app import run
from local_llm.errors import ConflictError, IntegrityError, InvalidInputError
from local_llm.fileio import read_json
from local_llm.models import Model, ModelStore
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import State
from local_llm.tensors import model_tensors
from training.lora import with_adapter
from training.merge import Merged, difference, export_merged
from training.quiet import quiet_libraries

from .conftest import TINY
from .peft_adapters import save_adapter


def export(base: Model, adapter: Path, output: Path, **options: Any) -> Merged:
    return export_merged(base, adapter, output, source="ft:x merged into tiny", report=lambda *_: None, **options)


def load(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with quiet_libraries():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def greedy(model: Any, tokenizer: Any, text: str) -> list[int]:
    import torch

    with torch.inference_mode():
        encoded = tokenizer(text, return_tensors="pt")
        return model.generate(**encoded, max_new_tokens=24, do_sample=False, pad_token_id=0)[0].tolist()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"q_proj": 2}},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
    ],
    ids=["linear", "rslora", "output layer", "embeddings"],
)
def test_the_merged_model_generates_what_base_and_adapter_do(
    tiny_model: Model, tiny_folder: Path, tokenizer: Any, tmp_path: Path, config: dict
) -> None:
    """The tiny model's output layer is its embeddings: an update of one must not reach the other."""
    adapter = save_adapter(tiny_folder, tmp_path / "adapter", **config)
    merged = export(tiny_model, adapter, tmp_path / "merged", dtype="fp32")
    assert merged.difference < 1e-4
    adapted, alone, whole = with_adapter(load(tiny_folder), adapter), load(tiny_folder), load(tmp_path / "merged")
    for text in ("Hello", "What is a tram?", "1, 2, 3"):
        expected = greedy(adapted, tokenizer, text)
        assert greedy(whole, tokenizer, text) == expected
        assert greedy(alone, tokenizer, text) != expected, "the adapter's effect would not show"


@pytest.mark.parametrize(("dtype", "stored"), [("bf16", "BF16"), ("fp16", "F16"), ("fp32", "F32")])
def test_weights_are_written_as_asked_for(
    tiny_model: Model, tiny_folder: Path, tmp_path: Path, dtype: Any, stored: str
) -> None:
    merged = export(tiny_model, save_adapter(tiny_folder, tmp_path / "adapter"), tmp_path / "merged", dtype=dtype)
    assert 0 < merged.difference <= merged.tolerance
    assert {tensor.dtype for tensor in model_tensors(merged.path).values()} == {stored}


def test_the_folder_holds_a_whole_model_and_no_code_nor_paths(
    tiny_model: Model, tiny_folder: Path, tmp_path: Path
) -> None:
    (tiny_model.path / "LICENSE").write_text("the base's licence")  # as the base's folder may hold one
    merged = export(tiny_model, save_adapter(tiny_folder, tmp_path / "adapter"), tmp_path / "merged")
    names = {path.name for path in merged.path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "manifest.json", "LICENSE"} <= names
    assert not [name for name in names if name.endswith((".py", ".bin", ".pt"))]
    for file in merged.path.glob("*.json"):
        assert str(tmp_path) not in file.read_text()
        assert str(tiny_folder) not in file.read_text()
    manifest = read_json(merged.path / "manifest.json")
    assert (manifest["source"], manifest["kind"]) == ("ft:x merged into tiny", "base")
    assert set(manifest["files"]) == names - {"manifest.json"}


def test_a_model_that_does_not_answer_as_base_and_adapter_did_leaves_nothing(
    tiny_model: Model, tiny_folder: Path, tmp_path: Path
) -> None:
    """An update of some 1e6, which fp32 holds and fp16 does not: it goes wrong in what is written."""
    from safetensors.torch import load_file, save_file

    adapter = save_adapter(tiny_folder, tmp_path / "adapter", target_modules=["o_proj"])
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor * 1e3 for name, tensor in weights.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(IntegrityError, match=r"as written \(fp16\) does not answer as base and adapter do"):
        export(tiny_model, adapter, tmp_path / "out" / "merged", dtype="fp16")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_already_there_is_left_alone(tiny_model: Model, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    with pytest.raises(ConflictError, match="already there"):
        export(tiny_model, save_adapter(tiny_folder, tmp_path / "adapter"), tmp_path / "merged")
    assert list((tmp_path / "merged").iterdir()) == []


def test_a_quantised_base_is_refused(settings: Settings, tiny_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "quantised"
    copy.mkdir()
    config = {**read_json(tiny_folder / "config.json"), "quantization_config": {"quant_method": "gptq"}}
    (copy / "config.json").write_text(json.dumps(config))
    base = ModelStore(settings.place.ensure().models).import_folder(copy, name="quantised")
    with pytest.raises(InvalidInputError, match="quantised"):
        export(base, tmp_path, tmp_path / "merged")


def test_a_difference_is_a_share_of_the_spread() -> None:
    import torch

    # Centred: (-1, 1) and (-2, 2), norm √10; the second row's change (0, 1) is (-0.5, 0.5) centred, norm √0.5.
    expected = torch.tensor([[1.0, 3.0], [0.0, 4.0]])
    found = torch.tensor([[7.0, 9.0], [0.0, 5.0]])  # the first row shifted as a whole: the same distribution
    assert difference(expected, found) == pytest.approx((0.5 / 10) ** 0.5, abs=1e-6)


class TestCommandLine:
    @pytest.fixture
    def name(
        self, settings: Settings, state: State, admin: Caller, tiny_model: Model, tiny_folder: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> str:  # fmt: skip
        monkeypatch.setenv("LOCAL_LLM_HOME", str(settings.home))
        monkeypatch.setenv("LOCAL_LLM_ENGINE__MODEL", TINY)
        registry = AdapterRegistry(settings, state)
        row = registry.publish(
            save_adapter(tiny_folder, tmp_path / "adapter"),
            base=tiny_model,
            name=registry.new_name(TINY, "merge"),
            project_id=admin.project_id,
            run=AdapterRun(data_sha256="d", settings={}, metrics={}, versions={}),
        )
        return row.name

    def test_an_exported_model_can_be_imported_and_answers_as_the_adapter_did(
        self, name: str, settings: Settings, tokenizer: Any, tiny_folder: Path, tmp_path: Path, capsys
    ) -> None:
        output = tmp_path / "merged"
        assert run(["train", "export", name, "--output", str(output), "--dtype", "fp32", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["adapter"], result["base"], result["path"]) == (name, TINY, str(output))
        assert result["difference"] < result["tolerance"]

        assert run(["models", "import", str(output), "--name", "tuned", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["kind"] == "base"
        tuned = ModelStore(settings.place.models).get("tuned", "base")
        adapted = with_adapter(load(tiny_folder), tmp_path / "adapter")
        assert greedy(load(tuned.path), tokenizer, "Hello") == greedy(adapted, tokenizer, "Hello")

    def test_a_name_that_there_is_not_and_a_base_that_changed_are_told(
        self, name: str, state: State, settings: Settings, tmp_path: Path, capsys
    ) -> None:
        output = str(tmp_path / "merged")
        assert run(["train", "export", "ft:nothing", "--output", output]) == 1
        assert "does not exist" in capsys.readouterr().err
        file = settings.place.models / TINY / "manifest.json"
        manifest = read_json(file)
        manifest["files"].pop("generation_config.json")
        file.write_text(json.dumps(manifest))
        assert run(["train", "export", name, "--output", output]) == 1
        assert "was trained on a tiny of the hash" in capsys.readouterr().err
        assert not Path(output).exists()
