"""Adapters as other people make them: by PEFT, of any kind, with an effect that shows."""

from pathlib import Path
from typing import Any

from training.quiet import quiet_libraries

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_adapter(base: Path, folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """Rank 4 on all linear layers, unless told otherwise; random weights in place of training."""
    with quiet_libraries():
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(seed)
        values = {"r": 4, "lora_alpha": 8, "target_modules": LINEAR, "task_type": "CAUSAL_LM", **config}
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**values))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder)
    return folder
