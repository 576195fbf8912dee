"""What a client asks of a fine-tuning job: read from the API's body and checked field by field, before any row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from local_llm.errors import InvalidInputError
from local_llm.identifiers import is_suffix
from local_llm.settings import Quantization
from training.hyperparameters import EPOCHS, METHODS, Hyperparameters, Method, refuse_seed

# Limits of the hosted API.
METADATA_PAIRS, METADATA_KEY_LENGTH, METADATA_VALUE_LENGTH = 16, 64, 512

# Ours. Source of the rank: the largest that vLLM serves.
RANK = (1, 512)
ALPHA = (1, 4096)
EARLY_STOPPING_EPOCHS = (0, EPOCHS[1])
QUANTIZATIONS = ("none", "4bit")

LORA_KEYS = ("rank", "alpha", "rslora", "quantization", "early_stopping_epochs")
BODY_KEYS = (
    "model", "training_file", "validation_file", "method", "hyperparameters", "seed", "suffix", "metadata",
    "integrations", "lora",
)  # fmt: skip
KIND_NAMES = {str: "a text", int: "a whole number", dict: "an object"}


@dataclass(frozen=True)
class JobRequest:
    """What a client asks for. `model` is the name of a base model in the store, aliases resolved."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str | None = None
    seed: int | None = None
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    method: Method = "supervised"
    metadata: Mapping[str, str] = field(default_factory=dict)
    # Ours, beyond the hosted API's: None takes the setting of the same name in [training].
    rank: int | None = None
    alpha: int | None = None
    rslora: bool | None = None
    quantization: Quantization | None = None
    early_stopping_epochs: int | None = None

    def __post_init__(self) -> None:
        """Raises: InvalidInputError naming the first field that cannot be right. Files are not looked at."""
        if self.method not in METHODS:
            raise InvalidInputError(
                f"method.type is {_shown(self.method)}; expected {' or '.join(METHODS)}", param="method.type"
            )
        self.hyperparameters.for_method(self.method)
        if self.suffix is not None and not is_suffix(self.suffix):
            raise InvalidInputError(
                f"suffix {_shown(self.suffix)}: expected up to 64 letters, digits, '.', '_' and '-'", param="suffix"
            )
        if self.seed is not None:
            refuse_seed(self.seed)
        _refuse_metadata(self.metadata)
        self._refuse_lora()

    def method_json(self) -> dict[str, Any]:
        """The job's `method`, as the API shows it, with our own `lora` beside."""
        asked = self.hyperparameters.for_method(self.method).to_json()
        lora = {name: getattr(self, name) for name in LORA_KEYS if getattr(self, name) is not None}
        return {"type": self.method, self.method: {"hyperparameters": asked}, "lora": lora}

    def _refuse_lora(self) -> None:
        _refuse_outside("lora.rank", self.rank, RANK)
        _refuse_outside("lora.alpha", self.alpha, ALPHA)
        _refuse_outside("lora.early_stopping_epochs", self.early_stopping_epochs, EARLY_STOPPING_EPOCHS)
        if self.rslora is not None and type(self.rslora) is not bool:
            raise InvalidInputError(
                f"lora.rslora is {_shown(self.rslora)}; expected true or false", param="lora.rslora"
            )
        if self.quantization is not None and self.quantization not in QUANTIZATIONS:
            raise InvalidInputError(
                f"lora.quantization is {_shown(self.quantization)}; expected {' or '.join(QUANTIZATIONS)}",
                param="lora.quantization",
            )


def request_from_api(body: Mapping[str, Any], *, model: str) -> JobRequest:
    """The request in the body of POST /v1/fine_tuning/jobs. `model`: the body's, aliases resolved.

    Whatever is not read here is refused: nobody learns from a finished job that a wish of theirs was ignored.

    Raises: InvalidInputError naming the field.
    """
    _refuse_unknown(body, BODY_KEYS, "")
    if body.get("integrations") not in (None, []):
        raise InvalidInputError(
            "integrations report to services elsewhere, and nothing here connects to one",
            hint="leave it out; metrics are in the job's events, checkpoints and result file",
            param="integrations",
        )
    training_file = _optional(body, "training_file", str)
    if not training_file:
        raise InvalidInputError(
            "training_file is missing; expected the id of an uploaded file", param="training_file"
        )
    method = _optional(body, "method", dict)
    kind: Method = "supervised" if method is None else _method_type(method)
    lora = _optional(body, "lora", dict) or {}
    _refuse_unknown(lora, LORA_KEYS, "lora.")
    return JobRequest(
        model=model,
        training_file=training_file,
        validation_file=_optional(body, "validation_file", str),
        suffix=_optional(body, "suffix", str),
        seed=_optional(body, "seed", int),
        hyperparameters=_hyperparameters(body, method or {}, kind),
        method=kind,
        metadata=_optional(body, "metadata", dict) or {},
        **lora,
    )


def _method_type(method: Mapping[str, Any]) -> Method:
    _refuse_unknown(method, ("type", *METHODS, "reinforcement"), "method.")
    kind = method.get("type")
    if kind not in METHODS:
        raise InvalidInputError(
            f"method.type is {_shown(kind)}; expected {' or '.join(METHODS)}", param="method.type"
        )
    others = [name for name, value in method.items() if name not in ("type", kind) and value is not None]
    if others:
        raise InvalidInputError(
            f"method.{others[0]} is given, but method.type is {kind!r}: it is one or the other", param="method.type"
        )
    return cast(Method, kind)


def _hyperparameters(body: Mapping[str, Any], method: Mapping[str, Any], kind: Method) -> Hyperparameters:
    """From `method`, or from the older place at the top of the body."""
    options = _optional(method, kind, dict, within="method.") or {}
    _refuse_unknown(options, ("hyperparameters",), f"method.{kind}.")
    newer = _optional(options, "hyperparameters", dict, within=f"method.{kind}.") or {}
    older = _optional(body, "hyperparameters", dict) or {}
    if newer and older and newer != older:
        raise InvalidInputError(
            f"hyperparameters and method.{kind}.hyperparameters differ; give one",
            param="hyperparameters",
        )
    try:
        return Hyperparameters.from_json(newer or older).for_method(kind)
    except InvalidInputError as error:
        if not newer:
            raise
        raise InvalidInputError(error.message, hint=error.hint, param=f"method.{kind}.{error.param}") from None


def _refuse_metadata(metadata: Mapping[str, str]) -> None:
    fits = len(metadata) <= METADATA_PAIRS and all(
        isinstance(value, str) and len(key) <= METADATA_KEY_LENGTH and len(value) <= METADATA_VALUE_LENGTH
        for key, value in metadata.items()
    )
    if not fits:
        raise InvalidInputError(
            f"metadata: expected up to {METADATA_PAIRS} pairs of texts, keys of up to {METADATA_KEY_LENGTH} and "
            f"values of up to {METADATA_VALUE_LENGTH} characters",
            param="metadata",
        )


def _refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(values) - set(known))
    if unknown:
        name = f"{where}{unknown[0][:60]}"
        raise InvalidInputError(f"there is no {name!r} here; expected {', '.join(known)}", param=name)


def _refuse_outside(name: str, value: int | None, limits: tuple[int, int]) -> None:
    low, high = limits
    if value is not None and (type(value) is not int or not low <= value <= high):
        raise InvalidInputError(
            f"{name} is {_shown(value)}; expected a whole number from {low} to {high}", param=name
        )


def _optional(values: Mapping[str, Any], name: str, kind: type, *, within: str = "") -> Any:
    value = values.get(name)
    if value is not None and not isinstance(value, kind):
        where = f"{within}{name}"
        raise InvalidInputError(f"{where} is {_shown(value)}; expected {KIND_NAMES[kind]}", param=where)
    return value


def _shown(value: object) -> str:
    return f"{value!r:.60}"
