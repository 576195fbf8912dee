"""What decides the result of a training run, apart from the model and the rows."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from local_llm.settings import Quantization
from training.hyperparameters import Method, Resolved

WARMUP_SHARE = 0.05


@dataclass(frozen=True)
class Recipe:
    rank: int
    alpha: int
    learning_rate: float  # the highest one: it rises to it in 5 % of the steps and falls linearly to 0
    epochs: int
    batch_size: int
    seed: int
    method: Method = "supervised"
    rslora: bool = False  # the update is scaled by alpha / √rank instead of alpha / rank
    quantization: Quantization = "none"
    beta: float | None = None  # of method "dpo" only: how closely the model stays by its base
    early_stopping_epochs: int = 0  # without a better validation loss; 0: never

    @classmethod
    def build(cls, resolved: Resolved, *, learning_rate: float, **values: Any) -> "Recipe":
        """`learning_rate`: the base rate, which the resolved multiplier multiplies."""
        return cls(
            learning_rate=learning_rate * resolved.learning_rate_multiplier,
            epochs=resolved.n_epochs,
            batch_size=resolved.batch_size,
            **values,
        )

    def steps_per_epoch(self, rows: int) -> int:
        return math.ceil(rows / self.batch_size)

    def steps(self, rows: int) -> int:
        return self.epochs * self.steps_per_epoch(rows)

    def warmup_steps(self, rows: int) -> int:
        return int(WARMUP_SHARE * self.steps(rows))

    def rows_trained(self, step: int, rows: int) -> int:
        """Rows that have passed through the model after `step` steps: the last batch of an epoch may be short."""
        epochs, rest = divmod(step, self.steps_per_epoch(rows))
        return epochs * rows + min(rest * self.batch_size, rows)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
