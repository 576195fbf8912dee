"""The base model as training loads it."""

from pathlib import Path
from typing import Any

from training.quiet import quiet_libraries
from training.recipe import Recipe


def hidden_size(base: Path) -> int:
    """The width of a base model, by which "auto" chooses the learning rate."""
    with quiet_libraries():
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(base, local_files_only=True).get_text_config().hidden_size


def compute_precision() -> str:
    """What the hardware computes in: bf16 if it can, else fp32.

    bf16 weights under an adapter in fp32: twice as fast as fp32 on a CPU that computes in bf16, as accurate.
    """
    import torch

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def load(base: Path, recipe: Recipe) -> Any:
    """The model in the hardware's precision, or in 4 bits; with FlashAttention where that can be had."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if compute_precision() == "bf16" else torch.float32
    return AutoModelForCausalLM.from_pretrained(
        base,
        dtype=dtype,
        local_files_only=True,
        quantization_config=_quantization(recipe, dtype),
        **({"attn_implementation": "flash_attention_2"} if has_flash_attention() else {}),
    )


def has_flash_attention() -> bool:
    import torch
    from transformers.utils import is_flash_attn_2_available

    return bool(torch.cuda.is_available() and is_flash_attn_2_available())


def _quantization(recipe: Recipe, dtype: Any) -> Any:
    """QLoRA's settings: 4-bit normal floats, quantised once more, computed with in `dtype`.

    Source: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs".
    """
    if recipe.quantization == "none":
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
