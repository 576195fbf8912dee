"""Texts into vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.encoding import converted
from index.encoding.openvino_graph import OpenVINOModel
from index.encoding.torch_model import TorchModel
from index.encoding.turns import Turns
from local_llm.encoder_recipe import Precision, Recipe, fingerprint_of, recipe_of
from local_llm.errors import ConflictError

__all__ = ["BATCH", "Encoded", "Encoder", "Recipe", "Vectors", "fingerprint_of", "recipe_of"]

Vectors = NDArray[np.float32]

BATCH = 32


@dataclass(frozen=True)
class Encoded:
    """`vectors`: float32 [texts, dimension], rows of length 1. `tokens`: read of each text, special ones and prompt
    included. `truncated`: how many texts were longer than the encoder reads."""

    vectors: Vectors
    tokens: list[int]
    truncated: int


class Encoder:
    """A loaded encoder, for any number of threads: queries that wait together are encoded together, and before the
    next batch of documents.

    `path` is a folder of the model store, `device` is "auto", "cpu" or "cuda". int8 needs `derived`, the folder of
    what was converted (converted.py): it runs on the CPU whatever the device.

    Raises: ConflictError if the encoder does not hold its scores in int8.
    """

    def __init__(self, path: Path, device: str, precision: Precision = "float32", derived: Path | None = None):
        self.name = path.name
        self.precision = precision
        self.recipe = recipe_of(path, precision)
        self.fingerprint = fingerprint_of(path, precision)
        self._model = _int8_model(path, derived) if precision == "int8" else TorchModel(path, self.recipe, device)
        self._tokenizer = self._model.tokenizer
        self._turns = Turns()

    @property
    def dimension(self) -> int:
        return self._model.dimension

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that are read, the special ones and the prompt not counted."""
        prompt = self.count_tokens(self.recipe.document_prompt)
        return self._tokenizer.max_tokens - self._tokenizer.special_tokens - prompt

    @property
    def vocabulary_size(self) -> int:
        return self._tokenizer.vocabulary_size

    def token_ends(self, text: str) -> list[int]:
        """For each token of the text, special ones not included, the character where it ends."""
        return self._tokenizer.ends(text)

    def count_tokens(self, text: str) -> int:
        return len(self.token_ends(text))

    def token_ids(self, text: str) -> list[int]:
        """Special tokens not included; nothing is cut."""
        return self._tokenizer.ids(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)

    def text_of_token_ids(self, ids: Sequence[int]) -> str:
        """The text of ids that a client sends in its place.

        Raises: InvalidInputError if they are of another tokenizer: the text does not give the same ids again.
        """
        return self._tokenizer.text_of(ids)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Returns: float32 [texts, dimension], rows of length 1."""
        return self.encode(texts, "document").vectors

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Returns: float32 [texts, dimension], rows of length 1."""
        return self.encode(texts, "query").vectors

    def encode(self, texts: Sequence[str], kind: str) -> Encoded:
        """`kind` is "query" or "document": it decides on the prompt, and on who goes first."""
        prompt = self.recipe.query_prompt if kind == "query" else self.recipe.document_prompt
        read = self._tokenizer.read([prompt + text for text in texts])
        tokens = [len(ids) for ids in read.ids]
        vectors = np.empty((len(texts), self.dimension), np.float32)
        # Batches of like length: little is spent on padding.
        order = sorted(range(len(texts)), key=tokens.__getitem__)
        take_turn = self._turns.queries if kind == "query" else self._turns.documents
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            vectors[rows] = take_turn(partial(self._batch, prompt), [texts[row] for row in rows])
        return Encoded(vectors, tokens, sum(read.cut))

    def _batch(self, prompt: str, texts: Sequence[str]) -> Vectors:
        ids = self._tokenizer.read([prompt + text for text in texts]).ids
        vectors = self._model.encode(texts, prompt, ids)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _int8_model(path: Path, derived: Path | None) -> OpenVINOModel:
    if derived is None:
        raise ValueError("an int8 encoder needs the folder of converted ones")
    check = converted.convert_once(path, derived)
    if not check.kept:
        raise ConflictError(f"{path.name} has no int8 form: {check.reason}", hint='set index.precision = "auto"')
    return OpenVINOModel(converted.folder_of(path, derived))
