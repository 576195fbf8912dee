"""What "as suits the model" comes to: the settings of a run with nothing left open."""

from dataclasses import dataclass
from pathlib import Path

from local_llm.encoder_recipe import is_bge
from training.retriever.settings import RetrieverSettings

# Source: FlagEmbedding's fine-tuning example trains BGE at 0.02. For others too: 0.05, which sentence-transformers'
# loss has unasked (scale 20), cost all-MiniLM-L6-v2 more of what it knew before (docs/benchmarks.md).
TEMPERATURE = 0.02
# Source: 1e-5 is FlagEmbedding's; 2e-5 is what sentence-transformers' own examples train such models with.
BGE_LEARNING_RATE, LEARNING_RATE = 1e-5, 2e-5
# Source: "LoRA Without Regret" (Schulman et al., 2025): the best rate for LoRA is ten times that for all weights.
LORA_FACTOR = 10
# So many pairs are enough in one pass; of fewer, a step or two would be all.
MANY_PAIRS, SOME_PAIRS = 2000, 500


@dataclass(frozen=True)
class Chosen:
    temperature: float
    learning_rate: float
    epochs: int

    @staticmethod
    def of(settings: RetrieverSettings, encoder: Path, pairs: int) -> "Chosen":
        bge = is_bge(encoder)
        rate = (BGE_LEARNING_RATE if bge else LEARNING_RATE) * (LORA_FACTOR if settings.lora_rank else 1)
        return Chosen(
            temperature=_else(settings.temperature, TEMPERATURE),
            learning_rate=_else(settings.learning_rate, rate),
            epochs=settings.epochs if settings.epochs is not None else _epochs(pairs, bge),
        )


def _epochs(pairs: int, bge: bool) -> int:
    if pairs >= MANY_PAIRS:
        return 2 if bge else 1
    return 2 if pairs >= SOME_PAIRS else 4


def _else(given: float | None, otherwise: float) -> float:
    return otherwise if given is None else given
