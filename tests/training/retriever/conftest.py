"""A tiny random BGE-shaped encoder and a world whose questions it can learn: everything is real but the size."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local_llm.embedded import ENCODER, locate
from local_llm.models import ModelStore
from local_llm.questions import Question
from training.quiet import quiet_libraries
from training.retriever import data
from training.retriever.data import Passage
from training.retriever.settings import RetrieverSettings

BGE = "bge-tiny-en-v1.5"
WORDS = [
    "anchor",
    "amber",
    "basin",
    "birch",
    "canal",
    "cedar",
    "comet",
    "copper",
    "coral",
    "cotton",
    "delta",
    "ember",
    "falcon",
    "ferry",
    "flint",
    "forest",
    "garnet",
    "glacier",
    "granite",
    "harbor",
    "hazel",
    "heron",
    "indigo",
    "island",
    "ivory",
    "jasper",
    "juniper",
    "kernel",
    "lagoon",
    "lantern",
    "laurel",
    "ledger",
    "linen",
    "lotus",
    "magnet",
    "maple",
    "marble",
    "meadow",
    "mercury",
    "mirror",
    "nectar",
    "needle",
    "ocean",
    "olive",
    "onyx",
    "opal",
    "orchid",
    "otter",
    "oyster",
    "pebble",
    "pepper",
    "pilot",
    "planet",
    "poplar",
    "prairie",
    "quartz",
    "quiver",
    "raven",
    "ribbon",
    "river",
    "saddle",
    "saffron",
    "salmon",
    "shadow",
    "silver",
    "sparrow",
    "spruce",
    "summit",
    "sunset",
    "tallow",
    "temple",
    "thistle",
    "thunder",
    "timber",
    "topaz",
    "tulip",
    "tunnel",
    "valley",
    "velvet",
    "violet",
    "walnut",
    "willow",
]
LEARNING: dict[str, Any] = {"learning_rate": 5e-3, "epochs": 2, "batch_size": 16, "max_tokens": 32}

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def bge_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain folder, without modules: pooling and instruction come from the name alone."""
    with quiet_libraries():
        import torch
        from transformers import AutoTokenizer, BertConfig, BertModel

        torch.manual_seed(7)
        tokenizer = AutoTokenizer.from_pretrained(locate(ENCODER), local_files_only=True)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            initializer_range=0.2,
        )
        model = BertModel(config)
        with torch.no_grad():  # the first state then tells a little of all words, not of itself alone
            model.encoder.layer[0].attention.self.query.weight.zero_()
            model.embeddings.position_embeddings.weight.mul_(0.1)
            model.embeddings.word_embeddings.weight[tokenizer.cls_token_id].mul_(0.05)
        folder = tmp_path_factory.mktemp("source") / BGE
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture
def encoder(store: ModelStore, bge_source: Path) -> Path:
    return store.import_folder(bge_source, name=BGE, licence="MIT").path


def passages(count: int = 150) -> list[Passage]:
    """Each document in two passages, of words of its own."""
    draw = random.Random(1)
    found = []
    for number in range(count):
        words = draw.sample(WORDS, 6)
        for part in range(2):
            text = f"About {words[0]} {words[1]}. " + " ".join(words[part * 2 + 2 : part * 2 + 4])
            found.append(Passage(f"p{number}-{part}", f"d{number}", text))
    return found


def questions(count: int = 150) -> list[Question]:
    """One about each document, in its own words."""
    firsts = {one.document: one.text for one in passages(count)}
    return [Question(f"what of {_words(text)}", frozenset([document])) for document, text in firsts.items()]


def _words(text: str) -> str:
    return " ".join(text.removeprefix("About ").replace(".", "").split())


@pytest.fixture
def write_run(tmp_path: Path, encoder: Path) -> Write:
    """Writes the folder of a run, with what is given in place of the world and of what it is trained with."""

    def write(name: str = "run", **changes: Any) -> Path:
        world = {"passages": passages(), "questions": questions()}
        world = {key: changes.pop(key, value) for key, value in world.items()}
        settings = RetrieverSettings(**{**LEARNING, **changes})
        data.write(tmp_path / name, world["passages"], world["questions"], encoder, settings)
        return tmp_path / name

    return write
