"""An encoder as sentence-transformers runs it: the home of that library."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.encoding.tokens import TextTokenizer
from local_llm.encoder_recipe import Recipe

Vectors = NDArray[np.float32]


class TorchModel:
    """`device` is "auto", "cpu" or "cuda"."""

    def __init__(self, path: Path, recipe: Recipe, device: str):
        self.model = load(path, recipe, device)
        self.dimension = int(self.model.get_embedding_dimension())
        self.tokenizer = TextTokenizer(self.model.tokenizer.backend_tokenizer.to_str(), self.model.max_seq_length)

    def encode(self, texts: Sequence[str], prompt: str, _ids: Sequence[Sequence[int]]) -> Vectors:
        """One batch. Returns: float32 [texts, dimension]."""
        tensor = self.model.encode(
            list(texts),
            prompt=prompt or None,
            batch_size=len(texts),
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)


def load(path: Path, recipe: Recipe, device: str) -> Any:
    """The folder's SentenceTransformer; a plain folder gets the recipe's pooling."""
    # Imported along by peft, it warns of a kernel that it would fetch from a hub; encoding needs none.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    plain = recipe.pooling is not None
    # The loader reads a plain folder too, but pools by the mean whatever the model was trained with.
    return SentenceTransformer(
        None if plain else str(path),
        modules=_plain_modules(path, recipe) if plain else None,
        device=None if device == "auto" else device,
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs=None if plain else {"dtype": _dtype(recipe)},
    )


def _plain_modules(path: Path, recipe: Recipe) -> list[Any]:
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer = Transformer(str(path), model_kwargs={"local_files_only": True, "dtype": _dtype(recipe)})
    return [transformer, Pooling(transformer.get_embedding_dimension(), recipe.pooling)]


def _dtype(recipe: Recipe) -> str:
    return "bfloat16" if recipe.precision == "bfloat16" else "float32"
