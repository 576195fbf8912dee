"""Texts into vectors: the home of sentence-transformers."""

import copy
import hashlib
import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from local_llm.fileio import read_json
from local_llm.models import read_manifest

Vectors = NDArray[np.float32]

BATCH = 32
# Source: the model cards of BAAI/bge-*-en and en-v1.5. BGE-M3 was trained without an instruction.
BGE_QUERY_PROMPT = "Represent this sentence for searching relevant passages: "
PRECISION = "float32"


@dataclass(frozen=True)
class Recipe:
    """How texts become vectors beyond the weights. `pooling` None: as the model's own modules say."""

    pooling: Literal["cls", "mean"] | None
    query_prompt: str
    document_prompt: str
    precision: str = PRECISION


class Encoder:
    """A loaded encoder. One call runs at a time; the others wait their turn.

    `path` is a folder of the model store. `device` is "auto", "cpu" or "cuda".
    """

    def __init__(self, path: Path, device: str):
        self.name = path.name
        self.recipe = recipe_of(path)
        self.fingerprint = fingerprint_of(path)
        self._model = _load(path, self.recipe, device)
        self._lock = threading.Lock()
        # A copy: padding and truncation, which encoding sets, would cut what is only to be counted.
        self._tokenizer = copy.deepcopy(self._model.tokenizer.backend_tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def dimension(self) -> int:
        return int(self._model.get_embedding_dimension())

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that are read, the special ones and the prompt not counted."""
        special = self._tokenizer.num_special_tokens_to_add(False)
        return int(self._model.max_seq_length) - special - len(self.token_ends(self.recipe.document_prompt))

    def token_ends(self, text: str) -> list[int]:
        """For each token of the text, special ones not included, the character where it ends."""
        return [end for _, end in self._tokenizer.encode(text, add_special_tokens=False).offsets]

    def count_tokens(self, text: str) -> int:
        return len(self.token_ends(text))

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Returns: float32 [texts, dimension], rows of length 1."""
        return self._encode(texts, self.recipe.document_prompt)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Returns: float32 [texts, dimension], rows of length 1."""
        return self._encode(texts, self.recipe.query_prompt)

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        with self._lock:
            vectors = self._model.encode(
                list(texts),
                prompt=prompt or None,
                batch_size=BATCH,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dimension)


def recipe_of(path: Path) -> Recipe:
    """Read from the folder's own files; what a plain BGE folder leaves unsaid is filled in."""
    prompts = _read_if_there(path / "config_sentence_transformers.json").get("prompts") or {}
    name = f"{path.name} {_read_if_there(path / 'config.json').get('_name_or_path', '')}".lower()
    bge = "bge" in name
    default_query = BGE_QUERY_PROMPT if bge and "bge-m3" not in name else ""
    plain = not (path / "modules.json").exists()
    return Recipe(
        pooling=("cls" if bge else "mean") if plain else None,
        query_prompt=prompts.get("query") or default_query,
        document_prompt=prompts.get("document") or prompts.get("passage") or "",
    )


def fingerprint_of(path: Path) -> str:
    """What a collection is bound to: equal fingerprints give equal vectors. Needs no loaded model."""
    parts = {"model": read_manifest(path).sha256, **asdict(recipe_of(path))}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _load(path: Path, recipe: Recipe, device: str) -> Any:
    # Imported along by peft, it warns of a kernel that it would fetch from a hub; encoding needs none.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return SentenceTransformer(
        str(path) if recipe.pooling is None else None,
        modules=None if recipe.pooling is None else _plain_modules(path, recipe.pooling),
        device=None if device == "auto" else device,
        local_files_only=True,
        trust_remote_code=False,
    )


def _plain_modules(path: Path, pooling: str) -> list[Any]:
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer = Transformer(str(path), model_kwargs={"local_files_only": True})
    return [transformer, Pooling(transformer.get_embedding_dimension(), pooling)]
