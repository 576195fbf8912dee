"""Hyperparameters of a run: as asked for ("auto" or a number), and as resolved for a number of examples."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from local_llm.errors import InvalidInputError

Auto = Literal["auto"]
Method = Literal["supervised", "dpo"]
METHODS: tuple[Method, ...] = get_args(Method)

# Limits of the hosted API.
EPOCHS = (1, 50)
BATCH_SIZE = (1, 256)
SEED = (0, 2**31 - 1)
MAXIMUM_BETA = 2.0
# Ours: no rate that trains anything is so far above the usual one.
MAXIMUM_MULTIPLIER = 10_000.0

# Source: OpenAI's cookbook, "Data preparation and analysis for chat model fine-tuning".
TARGET_EPOCHS = 3
MINIMUM_TARGET_EXAMPLES = 100
MAXIMUM_TARGET_EXAMPLES = 25_000
MAXIMUM_AUTO_EPOCHS = 25

USUAL_HIDDEN_SIZE = 4096
LEARNING_RATE_EXPONENT = 0.781

# How strongly preference training holds on to the model it began with.
# Source: "Direct Preference Optimization" (Rafailov et al., 2023), appendix B.
AUTO_BETA = 0.1


@dataclass(frozen=True)
class Resolved:
    """What is trained with. The learning rate is training.learning_rate times the multiplier, for dpo
    training.dpo_learning_rate times it."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float | None = None  # of dpo only

    def to_json(self) -> dict[str, Any]:
        return _without_nothing(asdict(self))


@dataclass(frozen=True)
class Hyperparameters:
    """What was asked for. Names are those of OpenAI's API."""

    n_epochs: int | Auto = "auto"
    batch_size: int | Auto = "auto"
    learning_rate_multiplier: float | Auto = "auto"
    beta: float | Auto | None = None  # of dpo only

    def __post_init__(self) -> None:
        """Raises: InvalidInputError naming the first value out of its limits."""
        _refuse_outside("n_epochs", self.n_epochs, EPOCHS)
        _refuse_outside("batch_size", self.batch_size, BATCH_SIZE)
        _refuse_above("learning_rate_multiplier", self.learning_rate_multiplier, MAXIMUM_MULTIPLIER)
        if self.beta is not None:
            _refuse_above("beta", self.beta, MAXIMUM_BETA)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Hyperparameters":
        """Raises: InvalidInputError for a name that there is not, or a value out of its limits."""
        known = {field.name for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise InvalidInputError(
                    f"there is no hyperparameter {name[:60]!r}; expected {', '.join(sorted(known))}",
                    param=f"hyperparameters.{name[:60]}",
                )
            if value is None:
                raise InvalidInputError(
                    f'{name} is null; expected "auto" or a number', param=f"hyperparameters.{name}"
                )
        return cls(**values)

    def for_method(self, method: Method) -> "Hyperparameters":
        """These, with the ones that only this method has.

        Raises: InvalidInputError if there is one that it has not.
        """
        if method == "dpo":
            return replace(self, beta="auto") if self.beta is None else self
        if self.beta is not None:
            raise InvalidInputError(f"beta is there for dpo, not for {method}", param="hyperparameters.beta")
        return self

    def to_json(self) -> dict[str, Any]:
        return _without_nothing(asdict(self))

    def resolve(self, examples: int, hidden_size: int) -> Resolved:
        """The values that "auto" stands for with this many examples and a base of this hidden size."""
        multiplier = self.learning_rate_multiplier
        return Resolved(
            n_epochs=auto_epochs(examples) if self.n_epochs == "auto" else self.n_epochs,
            batch_size=auto_batch_size(examples) if self.batch_size == "auto" else self.batch_size,
            learning_rate_multiplier=auto_multiplier(hidden_size) if multiplier == "auto" else float(multiplier),
            beta=AUTO_BETA if self.beta == "auto" else self.beta,
        )


def auto_epochs(examples: int) -> int:
    """Three, or what brings the examples seen between 100 and 25,000."""
    if examples * TARGET_EPOCHS < MINIMUM_TARGET_EXAMPLES:
        return min(MAXIMUM_AUTO_EPOCHS, MINIMUM_TARGET_EXAMPLES // examples)
    if examples * TARGET_EPOCHS > MAXIMUM_TARGET_EXAMPLES:
        return max(1, MAXIMUM_TARGET_EXAMPLES // examples)
    return TARGET_EPOCHS


def auto_batch_size(examples: int) -> int:
    """Small files need small batches to take steps enough; beyond 32, LoRA learns worse.

    Source: "LoRA Without Regret" (Schulman et al., 2025) for the penalty on large batches.
    """
    if examples < 1_000:
        return 8
    return 16 if examples < 10_000 else 32


def auto_multiplier(hidden_size: int) -> float:
    """One for models of 7 to 8 billion parameters, for which the usual 2e-4 was found; more for smaller ones.

    Source: the exponent that "LoRA Without Regret" fitted to the best learning rates of Llama models.
    """
    return round((USUAL_HIDDEN_SIZE / hidden_size) ** LEARNING_RATE_EXPONENT, 2)


def refuse_seed(seed: int) -> None:
    """Raises: InvalidInputError."""
    if type(seed) is not int or not SEED[0] <= seed <= SEED[1]:
        raise InvalidInputError(f"seed is {seed!r}; expected a whole number from 0 to {SEED[1]}", param="seed")


def _refuse_outside(name: str, value: int | Auto, limits: tuple[int, int]) -> None:
    low, high = limits
    if value != "auto" and (type(value) is not int or not low <= value <= high):
        raise InvalidInputError(
            f'{name} is {_shown(value)}; expected "auto" or a whole number from {low} to {high}',
            param=f"hyperparameters.{name}",
        )


def _refuse_above(name: str, value: float | Auto, highest: float) -> None:
    if value != "auto" and (not _is_number(value) or not 0 < value <= highest):
        raise InvalidInputError(
            f'{name} is {_shown(value)}; expected "auto" or a number above 0 and up to {highest:,g}',
            param=f"hyperparameters.{name}",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    return f"{value!r:.60}"


def _without_nothing(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
