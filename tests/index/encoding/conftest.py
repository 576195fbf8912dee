"""Small models with random weights and the embedded encoder's tokenizer, as plain folders of the store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local_llm.embedded import ENCODER, locate
from local_llm.models import ModelStore

MakeModel = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """A folder of the store with a Bert of two layers. `labels`: with a head for so many classes."""

    def make(name: str, labels: int = 0) -> Path:
        import torch
        from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

        torch.manual_seed(7)
        tokenizer = AutoTokenizer.from_pretrained(locate(ENCODER), local_files_only=True)
        sizes: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = BertConfig(vocab_size=len(tokenizer), intermediate_size=128, **sizes)
        if labels:
            config.num_labels = labels
        # Larger than Bert's own start: with that, all texts are nearly alike.
        config.initializer_range = 0.2
        model = BertForSequenceClassification(config) if labels else BertModel(config)
        source = tmp_path / "source" / name
        model.save_pretrained(source)
        tokenizer.save_pretrained(source)
        return ModelStore(tmp_path / "models").import_folder(source, name=name).path

    return make
