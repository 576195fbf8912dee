"""A tiny random model with a real tokenizer: everything but the answers is as with a real model."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from local_llm.embedded import CHAT, locate
from local_llm.models import Model, ModelStore
from local_llm.settings import Settings
from training.quiet import quiet_libraries

TINY = "tiny"


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The tokenizer of the embedded chat model, with its ChatML template."""
    with quiet_libraries():
        from transformers import AutoTokenizer

        file = locate(CHAT)
        return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)


@pytest.fixture(scope="session")
def tiny_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    folder = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_model(settings: Settings, tiny_folder: Path) -> Model:
    """The tiny model, in the store of the test's own home."""
    return ModelStore(settings.place.ensure().models).import_folder(tiny_folder, name=TINY)


def conversation(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write_lines(path: Path, lines: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def good_lines(count: int = 16) -> list[dict[str, Any]]:
    """Conversations of different lengths."""
    return [conversation(f"Question {n}?", "Aye. " * (n % 5 + 1) + f"Answer {n}.") for n in range(count)]


@pytest.fixture
def training_file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "training.jsonl", good_lines())
