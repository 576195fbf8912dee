"""All that decides how an encoder is trained, beside its data: checked in one place, with every problem at once."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from local_llm.errors import InvalidInputError

Loss = Literal["multiple-negatives", "cached", "cosine"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
# With fewer questions neither training nor the guard has enough to go by. Source: the article's "100+ examples".
FEWEST_QUESTIONS = 100
# Ranks of the candidates for hard negatives. Source: the fine-tuning example of FlagEmbedding (ranks 2 to 200).
FIRST_RANK, LAST_RANK = 2, 200


@dataclass(frozen=True)
class RetrieverSettings:
    """None is "as suits the model": Chosen.of() in training/retriever/choices.py says what that is.

    `temperature` divides cosines (1 / scale); `lora_rank` 0 trains all weights; `negatives` are mined for each pair
    (the cosine loss has one drawn by chance instead); `margin` is relative to the positive's score; `positives`
    bounds the documents that are trained for one question, all count as right all the same; `max_tokens` is what is
    read of a passage while training (None: all that the encoder reads); `max_seconds` ends training, the learning
    rate falling to zero until then. `force` allows fewer questions than FEWEST_QUESTIONS.
    """

    loss: Loss = "multiple-negatives"
    temperature: float | None = None
    lora_rank: int = 0
    epochs: int | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    warmup: float = 0.1
    negatives: int = 1
    margin: float = 0.05
    positives: int = 5
    max_tokens: int | None = 256
    max_seconds: float | None = None
    distinct_batches: bool = True  # no right document of one question in a batch where another brings it as wrong
    dev_share: float = 0.2
    test_share: float = 0.1
    checkpoint_seconds: float = 60.0  # between two checkpoints
    seed: int = 7
    force: bool = False

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise InvalidInputError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        if self.loss not in LOSSES:
            yield f"loss is {self.loss!r}; expected one of {', '.join(LOSSES)}"
        yield from _outside(self.temperature, "temperature", 0.001, 1)
        yield from _outside(self.lora_rank, "lora_rank", 0, 512)
        yield from _outside(self.epochs, "epochs", 1, 50)
        yield from _outside(self.batch_size, "batch_size", 2, 4096)
        yield from _outside(self.learning_rate, "learning_rate", 1e-8, 0.1)
        yield from _outside(self.warmup, "warmup", 0, 0.9)
        yield from _outside(self.negatives, "negatives", 0, 20)
        yield from _outside(self.margin, "margin", 0, 0.95)
        yield from _outside(self.positives, "positives", 1, 1000)
        yield from _outside(self.max_tokens, "max_tokens", 16, 32768)
        yield from _outside(self.max_seconds, "max_seconds", 1, 10**7)
        yield from _outside(self.checkpoint_seconds, "checkpoint_seconds", 0, 10**6)
        yield from _outside(self.dev_share, "dev_share", 0.05, 0.5)
        yield from _outside(self.test_share, "test_share", 0, 0.5)
        yield from _outside(self.seed, "seed", 0, 2**31 - 1)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(values: Mapping[str, Any]) -> RetrieverSettings:
    """Raises: InvalidInputError for names that are none of ours."""
    if unknown := sorted(values.keys() - {field.name for field in fields(RetrieverSettings)}):
        raise InvalidInputError(f"settings of a retriever hold {', '.join(unknown)}: no such names")
    return RetrieverSettings(**values)


def article(**changes: Any) -> RetrieverSettings:
    """The article's recipe: pairs labelled 1.0 and 0.0, wrong documents by chance, cosine similarity loss,
    shuffled, batches of 16, 3 epochs. What it leaves open is as `SentenceTransformer.fit` has it: a learning rate
    of 2e-5.
    """
    given = {
        "loss": "cosine",
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 2e-5,
        "warmup": 0.0,
        "max_tokens": None,
        "distinct_batches": False,
    }
    return RetrieverSettings(**{**given, **changes})


def library_defaults(**changes: Any) -> RetrieverSettings:
    """As sentence-transformers trains when it is told nothing: pairs alone, scale 20, batches of 8 by chance,
    3 epochs at 5e-5. Source: SentenceTransformerTrainingArguments and MultipleNegativesRankingLoss of 6.2.
    """
    given = {
        "loss": "multiple-negatives",
        "temperature": 0.05,
        "negatives": 0,
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 5e-5,
        "warmup": 0.0,
        "max_tokens": None,
        "distinct_batches": False,
    }
    return RetrieverSettings(**{**given, **changes})


def _outside(value: float | None, name: str, least: float, most: float) -> Iterator[str]:
    if value is not None and not least <= value <= most:
        yield f"{name} is {value:g}; expected {least:g} to {most:g}"
