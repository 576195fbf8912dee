"""How much arithmetic and how many bytes a figure stands for: the physics that it is held against.

A product of an [n, a] with an [a, b] matrix is 2 n a b operations. A linear layer of P weights is 2 P a token
forward; its gradient by the input is as much again, its gradient by the weights too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Dense bf16 by tensor cores, in operations a second. Source: NVIDIA's data sheets of each.
PEAKS = (
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
)
FP16_BYTES = 2


def peak_of(name: str) -> float | None:
    """By the GPU's own name; None: not known here."""
    return next((peak for part, peak in PEAKS if part in name), None)


@dataclass(frozen=True)
class Decoder:
    """`parameters`: all of the base's, the embeddings too, as published figures count them. `width`: heads times
    the size of a head."""

    parameters: int
    layers: int
    width: int


def lora_training(model: Decoder, lengths: Sequence[int]) -> float:
    """Operations of one pass forward and back over examples of these lengths, with a frozen base.

    4 N a token (the base's own gradients by the weights are not needed), and attention: of an example of n tokens
    forward 2 n² w a layer (its scores and their sum are 2 n² w each, half of it masked), back twice that: 6 n² w.
    What is computed again for want of memory does not count, nor does the adapter's own work.
    Source: docs/benchmarks.md names the reference that counts 4 N.
    """
    attention = 6 * model.layers * model.width * sum(length * length for length in lengths)
    return float(4 * model.parameters * sum(lengths) + attention)


@dataclass(frozen=True)
class Encoder:
    """`layer_parameters`: those of the layers alone. Embeddings are looked up, not multiplied."""

    layer_parameters: int
    layers: int
    width: int


def encoding(model: Encoder, lengths: Sequence[int]) -> float:
    """Operations of one pass forward over texts of these lengths: 2 P a token, and 4 n² w a layer for attention, in
    which every token sees every other."""
    attention = 4 * model.layers * model.width * sum(length * length for length in lengths)
    return float(2 * model.layer_parameters * sum(lengths) + attention)


def exact_search_bytes(rows: int, dimension: int) -> int:
    """What every exact search must read, whatever the number of questions: each row once, in 16-bit floats."""
    return rows * dimension * FP16_BYTES


def utilisation(operations: float, seconds: float, peak: float) -> float:
    return operations / seconds / peak
