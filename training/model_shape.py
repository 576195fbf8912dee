"""How large a model is, and what LoRA would train of it: from the headers of its files, without loading it."""

import re
from dataclasses import dataclass
from pathlib import Path

from local_llm.errors import InvalidInputError
from local_llm.fitting import EMBEDDINGS, HEAD, TOWERS
from local_llm.tensors import FLOATS, Tensor, model_tensors

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
# Of two dimensions, but no linear layers. Bases with experts are refused (local_llm/servable.py).
NO_LINEAR_LAYERS = re.compile(r"embed|\.experts\.|\.(gate|router)\.weight$")


@dataclass(frozen=True)
class ModelShape:
    parameters: int
    layers: int
    hidden_size: int
    vocabulary: int
    linear: tuple[tuple[int, int], ...]  # features in and out of each layer that LoRA adapts

    @classmethod
    def read(cls, folder: Path) -> "ModelShape":
        """Raises: InvalidInputError if the folder holds no plain weights of a language model."""
        tensors = model_tensors(folder)
        embeddings = next((tensor for name, tensor in tensors.items() if _last(name) in EMBEDDINGS), None)
        layers = {found[1] for found in map(LAYER.search, tensors) if found is not None}
        linear = tuple((t.shape[1], t.shape[0]) for name, t in tensors.items() if _is_linear(name, t))
        if embeddings is None or len(embeddings.shape) != 2 or not layers or not linear:
            raise InvalidInputError(f"{folder} holds no language model with plain weights", param="model")
        vocabulary, hidden_size = embeddings.shape
        parameters = sum(tensor.elements for tensor in tensors.values())
        return cls(parameters, len(layers), hidden_size, vocabulary, linear)

    @property
    def inner_size(self) -> int:
        """Features between the two halves of a feed-forward part."""
        return max((inner for inner, outer in self.linear if outer == self.hidden_size), default=self.hidden_size)

    @property
    def linear_parameters(self) -> int:
        """Weights of the layers that LoRA adapts: those that QLoRA quantises."""
        return sum(inner * outer for inner, outer in self.linear)

    def lora_parameters(self, rank: int) -> int:
        """A [rank, in] and B [out, rank] on every linear layer but the output layer: PEFT's `all-linear`."""
        return rank * sum(inner + outer for inner, outer in self.linear)


def _is_linear(name: str, tensor: Tensor) -> bool:
    matrix = name.endswith(".weight") and len(tensor.shape) == 2 and tensor.dtype in FLOATS
    named_otherwise = _last(name) in (*EMBEDDINGS, HEAD) or NO_LINEAR_LAYERS.search(name) or TOWERS.search(name)
    return matrix and not named_otherwise


def _last(name: str) -> str:
    """The module's own name: `q_proj` of `model.layers.0.self_attn.q_proj.weight`."""
    return name.removesuffix(".weight").rpartition(".")[2]
