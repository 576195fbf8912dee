"""Texts to vectors as the index has them: the same folder, pooling and prompts. sentence-transformers runs it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from local_llm.encoder_recipe import Recipe, recipe_of
from training import base_model
from training.quiet import quiet_libraries
from training.reporting import Report

Vectors = NDArray[np.float32]

BATCH = 32
# Texts between two words of progress, at which a run that is told to stop does.
CHUNK = 8 * BATCH


class Encoder:
    """The encoder of a folder. `device` is "auto", "cpu" or "cuda". Weights are float32, multiplied in bf16
    where the hardware computes in it: twice as fast, and the same for all encoders that are compared."""

    def __init__(self, path: Path, device: str = "auto"):
        self.path = path
        self.recipe: Recipe = recipe_of(path)
        self.model = load(path, self.recipe, device)

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that are read, special ones and prompts included."""
        return int(self.model.max_seq_length)

    def queries(self, texts: Sequence[str], report: Report | None = None) -> Vectors:
        """Returns: float32 [texts, dimension], rows of length 1."""
        return self._encode(texts, self.recipe.query_prompt, report)

    def documents(self, texts: Sequence[str], report: Report | None = None) -> Vectors:
        """Returns: float32 [texts, dimension], rows of length 1."""
        return self._encode(texts, self.recipe.document_prompt, report)

    def count_tokens(self, texts: Sequence[str], prompt: str = "") -> list[int]:
        """Of each text, special ones and the prompt included; nothing is cut."""
        counts: list[int] = []
        backend = type(self.model.tokenizer.backend_tokenizer).from_str(
            self.model.tokenizer.backend_tokenizer.to_str()
        )
        backend.no_truncation()
        backend.no_padding()
        for start in range(0, len(texts), CHUNK):
            part = [prompt + text for text in texts[start : start + CHUNK]]
            counts += [len(encoded.ids) for encoded in backend.encode_batch(part)]
        return counts

    def _encode(self, texts: Sequence[str], prompt: str, report: Report | None) -> Vectors:
        vectors = np.empty((len(texts), int(self.model.get_embedding_dimension())), np.float32)
        # Batches of like length: little is spent on padding.
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]), reverse=True)
        for start in range(0, len(order), CHUNK):
            rows = order[start : start + CHUNK]
            with self._precision():
                vectors[rows] = self.model.encode(
                    [texts[row] for row in rows],
                    prompt=prompt or None,
                    batch_size=BATCH,
                    normalize_embeddings=True,
                    show_progress_bar=False,
                )
            if report is not None:
                report(min(start + CHUNK, len(order)), len(order), "")
        return vectors

    def _precision(self) -> Any:
        import torch

        is_bf16 = base_model.compute_precision() == "bf16"
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=is_bf16)


def load(path: Path, recipe: Recipe, device: str = "auto") -> Any:
    """The folder's SentenceTransformer in float32; a plain folder gets the recipe's pooling."""
    with quiet_libraries():
        from sentence_transformers import SentenceTransformer

        plain = recipe.pooling is not None
        return SentenceTransformer(
            None if plain else str(path),
            modules=_plain_modules(path, recipe) if plain else None,
            device=None if device == "auto" else device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs=None if plain else {"dtype": "float32"},
        )


def _plain_modules(path: Path, recipe: Recipe) -> list[Any]:
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer = Transformer(str(path), model_kwargs={"local_files_only": True, "dtype": "float32"})
    return [transformer, Pooling(transformer.get_embedding_dimension(), recipe.pooling)]
