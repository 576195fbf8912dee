"""What a run takes is told before it begins: derived by hand here, and by PEFT where PEFT counts."""

import json
from pathlib import Path
from typing import Any

import pytest

from local_llm import ledger
from local_llm.cli.app import run
from local_llm.errors import InvalidInputError
from local_llm.hardware import Hardware, this_hardware
from local_llm.models import Model
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import State
from training.estimate import Counts, Memory, Plan, Speed, bill, measured_speed, memory_needed, total_steps
from training.examples.labels import Row
from training.hyperparameters import Hyperparameters, Resolved
from training.model_shape import ModelShape
from training.quiet import quiet_libraries

from ..handmade_adapters import base_tensors, write_base, zeros
from .conftest import TINY

GIB = 1024**3


def test_counts_are_those_of_one_pass_over_the_rows() -> None:
    rows = [Row(1, [1, 2, 3], [-100, 2, 3]), Row(2, [1, 2, 3, 4, 5], [-100, -100, -100, 4, 5])]
    assert Counts.of(rows) == Counts(examples=2, tokens=8, trained_tokens=4, longest_tokens=5)


def test_the_last_batch_of_an_epoch_may_be_short() -> None:
    # ⌈20 / 8⌉ = 3 steps an epoch
    assert total_steps(Counts(20, 0, 0, 1), Resolved(n_epochs=4, batch_size=8, learning_rate_multiplier=1)) == 12


class TestShape:
    def test_it_is_read_from_the_headers(self, tmp_path: Path) -> None:
        shape = ModelShape.read(write_base(tmp_path / "base"))
        assert (shape.layers, shape.hidden_size, shape.inner_size, shape.vocabulary) == (2, 8, 16, 32)
        # A layer: q and o 8 x 8, k and v 8 x 4, gate, up and down 8 x 16; two of them.
        assert shape.linear_parameters == 2 * (2 * 64 + 2 * 32 + 3 * 128) == 1152
        # And the embeddings 32 x 8, the last norm 8, a norm a layer 8.
        assert shape.parameters == 1152 + 256 + 8 + 2 * 8
        # q and o 8 + 8, k and v 8 + 4, gate, up and down 8 + 16.
        assert shape.lora_parameters(rank=1) == 2 * (2 * 16 + 2 * 12 + 3 * 24) == 256

    def test_neither_output_layer_nor_router_nor_experts_are_counted(self, tmp_path: Path) -> None:
        more = {
            "lm_head.weight": zeros(32, 8),
            "model.layers.0.mlp.gate.weight": zeros(4, 8),
            "model.layers.0.mlp.experts.0.up_proj.weight": zeros(16, 8),
            "model.layers.0.self_attn.q_proj.bias": zeros(8),
        }
        shape = ModelShape.read(write_base(tmp_path / "base", tensors=base_tensors() | more))
        assert shape.lora_parameters(rank=1) == 256

    def test_what_is_no_language_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="no language model"):
            ModelShape.read(write_base(tmp_path / "base", tensors={"norm.weight": zeros(8)}))

    def test_an_8b_model_has_the_published_number_of_lora_parameters(self) -> None:
        """Llama 3.1 8B: hidden 4096, inner 14336, 1024 for keys and values, 32 layers; 42 M at rank 16."""
        layer = (
            (4096, 4096), (4096, 1024), (4096, 1024), (4096, 4096), (4096, 14336), (4096, 14336), (14336, 4096)
        )  # fmt: skip
        shape = ModelShape(8_030_261_248, 32, 4096, 128_256, layer * 32)
        assert shape.lora_parameters(rank=16) == 41_943_040

    @pytest.mark.parametrize("architecture", ["Llama", "Qwen2", "Phi3"])
    def test_peft_counts_as_many_parameters(self, tmp_path: Path, architecture: str) -> None:
        """Tied and untied, with biases, and fused."""
        with quiet_libraries():
            import transformers
            from peft import LoraConfig, get_peft_model

            sizes = {
                "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
            }  # fmt: skip
            tied = architecture == "Llama"
            config = getattr(transformers, f"{architecture}Config")(**sizes, tie_word_embeddings=tied)
            model = getattr(transformers, f"{architecture}ForCausalLM")(config)
            model.save_pretrained(tmp_path / "model")
            lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
            trainable, everything = get_peft_model(model, lora).get_nb_trainable_parameters()
        shape = ModelShape.read(tmp_path / "model")
        assert shape.lora_parameters(rank=4) == trainable
        assert shape.parameters == everything - trainable
        assert (shape.layers, shape.hidden_size, shape.inner_size, shape.vocabulary) == (3, 32, 48, 96)


class TestMemory:
    # Two layers of a matrix 10 to 20 and one 20 to 10; 1,000 parameters in all.
    SHAPE = ModelShape(parameters=1000, layers=2, hidden_size=10, vocabulary=50, linear=((10, 20), (20, 10)) * 2)

    def needed(self, longest: int, **changes: Any) -> Memory:
        values = {"rank": 4, "batch_size": 8, "micro_batch_tokens": 100, "weight_bytes": 2, **changes}
        return memory_needed(self.SHAPE, Counts(20, 400, 200, longest), **values)

    def test_weights_adapter_and_a_micro_batch_of_activations(self) -> None:
        memory = self.needed(longest=25)
        assert memory.weights_bytes == 1000 * 2
        # 4 x (10 + 20) x 2 matrices x 2 layers = 480 parameters of 16 bytes: value, gradient, two moments in fp32
        assert memory.adapter_bytes == 480 * 16
        # 100 tokens x 2 layers x (28 x 10 + 4 x 2 x 20 bytes), and 100 x 50 logits of 32 bytes
        assert memory.activations_bytes == 88_000 + 160_000
        assert memory.total_bytes == 2000 + 7680 + 248_000

    def test_in_fp32_weights_and_the_inner_tensors_take_twice_as_much(self) -> None:
        memory = self.needed(longest=25, weight_bytes=4)
        assert memory.weights_bytes == 4000
        assert memory.activations_bytes == 100 * 2 * (280 + 320) + 160_000

    def test_a_small_batch_fills_no_micro_batch(self) -> None:
        assert self.needed(longest=10, batch_size=4).activations_bytes == (88_000 + 160_000) * 40 // 100

    def test_an_example_longer_than_a_micro_batch_has_its_layers_computed_again(self) -> None:
        # 200 tokens x (2 layers' inputs of 10 x 2 bytes + one layer's 440 bytes), and the logits
        assert self.needed(longest=200).activations_bytes == 200 * (40 + 440) + 200 * 50 * 32

    def test_in_4_bits_the_linear_layers_shrink_and_nothing_else(self) -> None:
        # 800 weights of 4 + 8/64 + 32/16384 bits = 412.70 bytes; the other 200 of two bytes
        memory = self.needed(longest=25, quantization="4bit")
        assert memory.weights_bytes == 413 + 400
        assert memory.activations_bytes == self.needed(longest=25).activations_bytes

    def test_it_is_what_training_the_embedded_model_was_seen_to_take(self) -> None:
        """4.83 GiB of resident memory over the libraries', with rows of 256 tokens, rank 16, bf16."""
        layer = ((576, 576), (576, 192), (576, 192), (576, 576), (576, 1536), (576, 1536), (1536, 576))
        shape = ModelShape(134_515_008, 30, 576, 49_152, layer * 30)
        counts = Counts(16, 4096, 4096, 256)
        memory = memory_needed(shape, counts, rank=16, batch_size=8, micro_batch_tokens=2048, weight_bytes=2)
        assert memory.total_bytes / GIB == pytest.approx(4.83, rel=0.05)


class TestBill:
    def test_tokens_by_speed_are_hours_and_hours_are_money(self) -> None:
        # 7.2 million tokens at 500 a second: 14,400 s
        speed = Speed(500.0, "ftjob-1")
        made = bill(7_200_000, speed, machine_usd_per_hour=2.5, hosted_usd_per_million_tokens=25.0)
        assert (made.hours, made.here_usd, made.hosted_usd) == (4.0, 10.0, 180.0)

    def test_what_is_not_known_is_not_zero(self) -> None:
        made = bill(7_200_000, None, machine_usd_per_hour=2.5, hosted_usd_per_million_tokens=None)
        assert (made.hours, made.here_usd, made.hosted_usd) == (None, None, None)

    def test_a_price_of_zero_is_a_price(self) -> None:
        made = bill(1, None, machine_usd_per_hour=0, hosted_usd_per_million_tokens=0.0)
        assert made.hosted_usd == 0.0


class TestSpeed:
    FACTS = {"base_sha256": "b", "tokens": 1000, "loop_seconds": 4.0, "job_id": "ftjob-1"}  # noqa: RUF012
    PLAN = Plan(Path("f"), "tiny", Hyperparameters(), rank=8, quantization="none")

    def speed(self, state: State, admin: Caller, plan: Plan = PLAN, here: Hardware | None = None) -> Speed | None:
        return measured_speed(
            state, admin.project_id, plan, "supervised", base_sha256="b", hardware=here or this_hardware()
        )

    def test_it_is_the_newest_jobs_on_this_base_and_hardware(self, state: State, admin: Caller) -> None:
        assert self.speed(state, admin) is None
        ledger.record(state, admin.project_id, "training", self.FACTS)
        assert self.speed(state, admin) == Speed(250.0, "ftjob-1")

    @pytest.mark.parametrize(
        "changes", [{"base_sha256": "other"}, {"quantization": "4bit"}, {"method": "dpo"}, {"loop_seconds": 0.0}]
    )
    def test_another_way_of_training_says_nothing(self, state: State, admin: Caller, changes: dict) -> None:
        ledger.record(state, admin.project_id, "training", {**self.FACTS, **changes})
        assert self.speed(state, admin) is None

    def test_other_hardware_says_nothing(self, state: State, admin: Caller) -> None:
        ledger.record(state, admin.project_id, "training", self.FACTS)
        here = this_hardware()
        assert self.speed(state, admin, here=Hardware("cuda", "H100", here.cores, here.memory_gib)) is None
        more_memory = Hardware(here.device, here.name, here.cores, here.memory_gib + 0.1)
        assert self.speed(state, admin, here=more_memory) is not None

    def test_another_project_says_nothing(self, state: State, admin: Caller) -> None:
        ledger.record(state, admin.project_id, "training", self.FACTS)
        assert self.speed(state, Caller("proj_other", "admin")) is None


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def home(self, settings: Settings, tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCAL_LLM_HOME", str(settings.home))
        monkeypatch.setenv("LOCAL_LLM_ENGINE__MODEL", TINY)

    def test_it_tells_all_for_machines(
        self, training_file: Path, tiny_model: Model, state: State, admin: Caller, monkeypatch, capsys
    ) -> None:
        facts = {**TestSpeed.FACTS, "base_sha256": tiny_model.manifest.sha256}
        ledger.record(state, admin.project_id, "training", facts)
        monkeypatch.setenv("LOCAL_LLM_COST__HOSTED_TRAINING_USD_PER_MILLION_TOKENS", "3")
        monkeypatch.setenv("LOCAL_LLM_COST__MACHINE_USD_PER_HOUR", "2")
        assert run(["train", "estimate", str(training_file), "--epochs", "2", "--rank", "8", "--json"]) == 0
        made = json.loads(capsys.readouterr().out)
        assert (made["model"], made["rank"], made["method"]) == (TINY, 8, "supervised")
        assert made["counts"]["examples"] == 16
        assert made["resolved"]["n_epochs"] == 2
        assert made["steps"] == 4  # 2 epochs of ⌈16 / 8⌉
        assert made["tokens"] == 2 * made["counts"]["tokens"]
        # Two layers of q and o 64 + 64, k and v 64 + 32, gate, up and down 64 + 128; rank 8.
        assert made["trainable_parameters"] == 8 * 2 * (2 * 128 + 2 * 96 + 3 * 192) == 16_384
        assert made["memory"]["adapter_bytes"] == 16 * 16_384
        assert made["speed"] == {"tokens_per_second": 250.0, "job_id": "ftjob-1"}
        hours = made["tokens"] / 250 / 3600
        assert made["bill"] == pytest.approx(
            {"hours": hours, "here_usd": 2 * hours, "hosted_usd": made["tokens"] / 1e6 * 3}
        )
        assert made["hardware"] == this_hardware().to_json()

    def test_people_are_told_what_is_not_known(self, training_file: Path, capsys) -> None:
        assert run(["train", "estimate", str(training_file)]) == 0
        lines = {line.partition("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
        assert "unknown" in lines["hours here"]
        assert "unknown" in lines["cost here"]
        assert "unpriced" in lines["cost hosted"]
        assert "16" in lines["examples"]
        assert "GiB" in lines["memory"]

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (["--epochs", "0"], "n_epochs is 0"),
            (["--epochs", "x"], "expected a whole number or auto"),
            (["--rank", "17"], "its rank is 17; the engine serves up to 16"),
            (["--rank", "0"], "its rank is 0"),
            (["--model", "none"], "there is no model 'none'"),
        ],
    )
    def test_what_a_run_would_refuse_is_refused(
        self, training_file: Path, capsys, monkeypatch: pytest.MonkeyPatch, options: list, reason: str
    ) -> None:
        monkeypatch.setenv("LOCAL_LLM_ENGINE__MAX_LORA_RANK", "16")
        assert run(["train", "estimate", str(training_file), *options]) == 1
        assert reason in capsys.readouterr().err

    def test_mistakes_in_the_file_are_told_at_once(self, tmp_path: Path, capsys) -> None:
        (tmp_path / "bad.jsonl").write_text('1\n{"messages": 2}\n')
        assert run(["train", "estimate", str(tmp_path / "bad.jsonl")]) == 1
        assert "2 problems" in capsys.readouterr().err
