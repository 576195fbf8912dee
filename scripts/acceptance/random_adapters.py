"""LoRA adapters with random weights, written as PEFT writes them, without loading the base."""

from pathlib import Path

from acceptance import models
from local_llm.fileio import write_json

RANK, ALPHA = 16, 32
# Small enough for the model to stay what it is, large enough to be seen in its answers.
SPREAD = 0.02


def write(folder: Path, shape: str, base: str, seed: int) -> Path:
    """On all linear layers but the output layer, as our trainer makes them."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)

    def random(*size: int) -> "torch.Tensor":
        return (SPREAD * torch.randn(*size, generator=generator)).bfloat16()

    tensors = {}
    for layer in range(models.DECODERS[shape]["num_hidden_layers"]):
        for name, (inner, outer) in linear_layers(shape).items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{prefix}.lora_A.weight"] = random(RANK, inner)
            tensors[f"{prefix}.lora_B.weight"] = random(outer, RANK)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0,
            "bias": "none", "base_model_name_or_path": base, "use_rslora": False, "use_dora": False,
            "target_modules": sorted({name.rpartition(".")[2] for name in linear_layers(shape)}),
        },
    )  # fmt: skip
    return folder


def linear_layers(shape: str) -> dict[str, tuple[int, int]]:
    """Features in and out of each linear layer of one of Llama's layers."""
    config = models.DECODERS[shape]
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kept = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden, kept),
        "self_attn.v_proj": (hidden, kept),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }
