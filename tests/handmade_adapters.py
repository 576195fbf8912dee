"""Base models and adapters by hand: real files of the right names and shapes, with zeros for weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

HIDDEN, INNER, KEYS, VOCABULARY, LAYERS = 8, 16, 4, 32, 2
# Features in and out of a layer's linear modules, as Llama has them.
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, KEYS),
    "self_attn.v_proj": (HIDDEN, KEYS),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (HIDDEN, INNER),
    "mlp.up_proj": (HIDDEN, INNER),
    "mlp.down_proj": (INNER, HIDDEN),
}
Q_PROJ = "model.layers.0.self_attn.q_proj"


def zeros(*shape: int) -> Any:
    return np.zeros(shape, dtype=np.float32)


def base_tensors(*, tied: bool = True) -> dict[str, Any]:
    tensors = {"model.embed_tokens.weight": zeros(VOCABULARY, HIDDEN), "model.norm.weight": zeros(HIDDEN)}
    for layer in range(LAYERS):
        for module, (inner, outer) in LINEAR.items():
            tensors[f"model.layers.{layer}.{module}.weight"] = zeros(outer, inner)
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = zeros(HIDDEN)
    return tensors if tied else {**tensors, "lm_head.weight": zeros(VOCABULARY, HIDDEN)}


def write_base(
    folder: Path, *, architecture: str = "LlamaForCausalLM", tensors: Mapping[str, Any] | None = None
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    save_file(dict(base_tensors() if tensors is None else tensors), folder / "model.safetensors")
    return folder


def lora(module: str, inner: int, outer: int, rank: int = 8) -> dict[str, Any]:
    """The two tensors of one adapted module, by PEFT's names."""
    name = f"base_model.model.{module}"
    return {f"{name}.lora_A.weight": zeros(rank, inner), f"{name}.lora_B.weight": zeros(outer, rank)}


def write_adapter(folder: Path, tensors: Mapping[str, Any] | None = None, **changes: Any) -> Path:
    """Rank 8 on one module, unless told otherwise; `changes` go into its configuration."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    save_file(
        dict(lora(Q_PROJ, HIDDEN, HIDDEN) if tensors is None else tensors), folder / "adapter_model.safetensors"
    )
    return folder
