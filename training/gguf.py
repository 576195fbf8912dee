"""GGUF files in: the only door through which quantised weights come, written out as plain safetensors."""

from pathlib import Path

from local_llm.errors import InvalidInputError


def write_as_safetensors(file: Path, target: Path) -> None:
    """Reads a chat model from a GGUF file and writes it to the folder `target` as bfloat16, with its tokenizer.

    Raises: InvalidInputError if the file is missing or transformers cannot read it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
