"""Only what the engine can load is trained, published or imported; each reason is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from local_llm.errors import InvalidInputError
from local_llm.fitting import changes_embeddings, refuse_misfit
from local_llm.servable import CONFIG, WEIGHTS, refuse_unservable, refuse_unservable_plan

from ..handmade_adapters import (
    HIDDEN,
    INNER,
    LINEAR,
    Q_PROJ,
    VOCABULARY,
    base_tensors,
    lora,
    write_adapter,
    write_base,
    zeros,
)

PREFIX = "base_model.model."


def fit(tmp_path: Path, tensors: dict[str, Any], base: Path, **changes: Any) -> None:
    folder = write_adapter(tmp_path / "adapter", tensors, **changes)
    refuse_misfit(folder, refuse_unservable(folder, max_rank=64), base)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


def test_lora_on_every_linear_layer_is_taken(tmp_path: Path, base: Path) -> None:
    tensors: dict[str, Any] = {}
    for layer in range(2):
        for module, (inner, outer) in LINEAR.items():
            tensors |= lora(f"model.layers.{layer}.{module}", inner, outer)
    fit(tmp_path, tensors, base)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "its type is PROMPT_TUNING"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "trains biases"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"trainable_token_indices": [1]}, "single rows"),
        ({"layer_replication": [[0, 1]]}, "replicates layers"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"r": 65}, "its rank is 65; the engine serves up to 64"),
        ({"r": 0}, "its rank is 0"),
        ({"r": "8"}, "its rank is '8'"),
        ({"r": None}, "its rank is None"),
        ({"rank_pattern": {"q_proj": 128}}, "its rank is 128"),
    ],
)
def test_what_vllm_cannot_load_is_refused_with_the_reason(tmp_path: Path, changes: dict, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        refuse_unservable(write_adapter(tmp_path / "adapter", **changes), max_rank=64)


@pytest.mark.parametrize("changes", [{"use_rslora": True}, {"init_lora_weights": "gaussian"}, {"r": 64}])
def test_what_vllm_can_load_is_taken(tmp_path: Path, changes: dict) -> None:
    assert refuse_unservable(write_adapter(tmp_path / "adapter", **changes), max_rank=64)["lora_alpha"] == 16


def test_all_reasons_are_told_at_once(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", use_dora=True, bias="all", r=512)
    with pytest.raises(InvalidInputError, match=r"biases.*DoRA.*rank is 512"):
        refuse_unservable(folder, max_rank=64)


@pytest.mark.parametrize("text", ["{", "[]", '"x"', '{"rank_pattern": [1]}'])
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    folder = write_adapter(tmp_path / "adapter")
    (folder / CONFIG).write_text(text)
    with pytest.raises(InvalidInputError, match="no adapter's configuration"):
        refuse_unservable(folder, max_rank=64)


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter")
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(InvalidInputError, match="pickle") as refusal:
        refuse_unservable(folder, max_rank=64)
    assert "save_pretrained" in (refusal.value.hint or "")


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({}, "holds no LoRA weights"),
        ({"w": zeros(2, 2)}, "w is no LoRA weight"),
        ({f"{PREFIX}{Q_PROJ}.lora_magnitude_vector": zeros(8)}, "is no LoRA weight"),
        ({f"{PREFIX}lm_head.weight": zeros(2, 2)}, "is no LoRA weight"),
        ({f"{PREFIX}{Q_PROJ}.lora_A.weight": zeros(8, HIDDEN)}, "has lora_A only"),
        (lora("model.layers.2.self_attn.q_proj", HIDDEN, HIDDEN), "no module of it"),
        (lora("model.layers.0.self_attn.qkv_proj", HIDDEN, HIDDEN), "no module of it"),
        (lora(Q_PROJ, HIDDEN + 1, HIDDEN), f"is 9 to 8; expected {HIDDEN} to {HIDDEN}"),
        (lora("model.layers.1.mlp.down_proj", HIDDEN, INNER), f"expected {INNER} to {HIDDEN}"),
        (lora(Q_PROJ, HIDDEN, HIDDEN, rank=4), "has the ranks 4 and 4; its configuration says 8"),
        (
            {
                f"{PREFIX}{Q_PROJ}.lora_A.weight": zeros(8, HIDDEN),
                f"{PREFIX}{Q_PROJ}.lora_B.weight": zeros(HIDDEN, 4),
            },
            "has the ranks 8 and 4",
        ),
        (
            {
                f"{PREFIX}{Q_PROJ}.lora_A.weight": zeros(8, HIDDEN).astype("int8"),
                f"{PREFIX}{Q_PROJ}.lora_B.weight": zeros(HIDDEN, 8),
            },
            "expected two float matrices",
        ),
        (lora("vision_tower.layers.0.q_proj", HIDDEN, HIDDEN), "outside the language model"),
    ],
)
def test_an_adapter_that_does_not_belong_to_the_base_is_refused(
    tmp_path: Path, base: Path, tensors: dict, reason: str
) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        fit(tmp_path, tensors, base)


def test_of_many_reasons_the_first_are_told_and_the_rest_counted(tmp_path: Path, base: Path) -> None:
    tensors = {f"strange.{number}": zeros(1) for number in range(9)}
    with pytest.raises(InvalidInputError, match=r"strange\.4 is no LoRA weight; and 5 more"):
        fit(tmp_path, tensors, base)


def test_ranks_may_differ_where_the_configuration_says_so(tmp_path: Path, base: Path) -> None:
    tensors = lora(Q_PROJ, HIDDEN, HIDDEN) | lora("model.layers.0.mlp.up_proj", HIDDEN, INNER, rank=2)
    fit(tmp_path, tensors, base, rank_pattern={"up_proj": 2})


def test_names_may_differ_in_their_wrappers(tmp_path: Path) -> None:
    """As files of multimodal models and the models that transformers makes of them do."""
    tensors = {f"language_model.{name}": tensor for name, tensor in base_tensors().items()}
    base = write_base(tmp_path / "base", tensors=tensors)
    fit(tmp_path, lora("model.language_model.layers.0.self_attn.q_proj", HIDDEN, HIDDEN), base)


def test_packed_weights_of_a_quantised_base_say_nothing_of_sizes(tmp_path: Path) -> None:
    tensors = base_tensors()
    tensors[f"{Q_PROJ}.qweight"] = tensors.pop(f"{Q_PROJ}.weight").astype("int32")
    fit(tmp_path, lora(Q_PROJ, 640, 640), write_base(tmp_path / "base", tensors=tensors))


EMBEDDINGS = {
    f"{PREFIX}model.embed_tokens.lora_embedding_A": zeros(8, VOCABULARY),
    f"{PREFIX}model.embed_tokens.lora_embedding_B": zeros(HIDDEN, 8),
    f"{PREFIX}model.embed_tokens.base_layer.weight": zeros(VOCABULARY, HIDDEN),
}
HEAD = lora("lm_head", HIDDEN, VOCABULARY)


class TestEmbeddings:
    def test_they_are_taken_where_vllm_takes_them(self, tmp_path: Path, base: Path) -> None:
        fit(tmp_path, EMBEDDINGS | HEAD, base)

    def test_the_output_layer_may_have_weights_of_its_own(self, tmp_path: Path) -> None:
        fit(tmp_path, HEAD, write_base(tmp_path / "base", tensors=base_tensors(tied=False)))

    def test_another_vocabulary_is_refused(self, tmp_path: Path, base: Path) -> None:
        with pytest.raises(
            InvalidInputError, match=f"lm_head is {HIDDEN} to 33; expected {HIDDEN} to {VOCABULARY}"
        ):
            fit(tmp_path, lora("lm_head", HIDDEN, VOCABULARY + 1), base)

    @pytest.mark.parametrize(
        ("architecture", "tensors", "name"),
        [
            ("Qwen2ForCausalLM", EMBEDDINGS, "embed_tokens"),
            ("MistralForCausalLM", HEAD, "lm_head"),
            ("CohereForCausalLM", HEAD, "lm_head"),
        ],
    )
    def test_they_are_refused_where_vllm_refuses_them(
        self, tmp_path: Path, architecture: str, tensors: dict, name: str
    ) -> None:
        base = write_base(tmp_path / "base", architecture=architecture)
        with pytest.raises(InvalidInputError, match=f"applies no adapter to {name} of {architecture}"):
            fit(tmp_path, tensors, base)

    def test_an_adapter_is_known_to_change_them(self, tmp_path: Path) -> None:
        assert changes_embeddings(write_adapter(tmp_path / "one", HEAD))
        assert changes_embeddings(write_adapter(tmp_path / "two", EMBEDDINGS))
        assert not changes_embeddings(write_adapter(tmp_path / "three"))


class TestExperts:
    ONE = lora("model.layers.0.mlp.experts.0.gate_proj", HIDDEN, INNER)
    # Four experts of rank 8, side by side.
    STACKED = lora("model.layers.0.mlp.experts", HIDDEN, INNER, rank=32)
    WEIGHTS = base_tensors() | {"model.layers.0.mlp.experts.0.gate_proj.weight": zeros(INNER, HIDDEN)}

    def test_one_by_one_they_are_taken_where_vllm_has_them_so(self, tmp_path: Path) -> None:
        base = write_base(tmp_path / "base", architecture="Qwen3MoeForCausalLM", tensors=self.WEIGHTS)
        fit(tmp_path, self.ONE, base)

    def test_stacked_they_are_taken_where_vllm_stacks_them(self, tmp_path: Path) -> None:
        fit(tmp_path, self.STACKED, write_base(tmp_path / "base", architecture="GptOssForCausalLM"))

    def test_stacked_they_are_refused_elsewhere(self, tmp_path: Path) -> None:
        base = write_base(tmp_path / "base", architecture="Qwen3MoeForCausalLM", tensors=self.WEIGHTS)
        with pytest.raises(InvalidInputError, match="a stack of experts, which the engine applies one by one"):
            fit(tmp_path, self.STACKED, base)

    def test_a_base_with_experts_is_refused_before_training(self, tmp_path: Path) -> None:
        base = write_base(tmp_path / "base", architecture="Qwen3MoeForCausalLM", tensors=self.WEIGHTS)
        with pytest.raises(InvalidInputError, match="mixture of experts") as refusal:
            refuse_unservable_plan(base, rank=8, max_rank=16)
        assert refusal.value.param == "model"


class TestPlan:
    def test_a_rank_that_could_not_be_served_is_refused_before_training(self, base: Path) -> None:
        refuse_unservable_plan(base, rank=16, max_rank=16)
        with pytest.raises(InvalidInputError, match=r"rank is 17.*engine\.max_lora_rank") as refusal:
            refuse_unservable_plan(base, rank=17, max_rank=16)
        assert refusal.value.param == "lora.rank"

    def test_a_base_that_an_adapter_could_not_be_compared_with_is_refused_before_training(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
        with pytest.raises(InvalidInputError, match="no weights in safetensors"):
            refuse_unservable_plan(tmp_path, rank=8, max_rank=16)
