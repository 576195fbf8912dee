"""How an encoder's folder is to be used, and what a collection is bound to. Loads no model."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from local_llm.fileio import read_json
from local_llm.models import read_manifest

Precision = Literal["float32", "bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("int8", "float32", "bfloat16")

# Raised when quantization changes, so that vectors made before are not mixed with those made after.
INT8_SCHEME = 1

# Source: the model cards of BAAI/bge-*-en and en-v1.5. BGE-M3 was trained without an instruction.
BGE_QUERY_PROMPT = "Represent this sentence for searching relevant passages: "

# What our own training leaves in the folder of an encoder: what it was trained from, and how.
TRAINING = "training.json"


@dataclass(frozen=True)
class Recipe:
    """How texts become vectors beyond the weights. `pooling` None: as the model's own modules say."""

    pooling: Literal["cls", "mean"] | None
    query_prompt: str
    document_prompt: str
    precision: Precision = "float32"


def recipe_of(path: Path, precision: Precision = "float32") -> Recipe:
    """Read from the folder's own files; what a BGE folder leaves unsaid is filled in.

    One that was trained here leaves nothing unsaid: its prompts count as they stand there, whatever its name holds.
    """
    prompts = _read_if_there(path / "config_sentence_transformers.json").get("prompts") or {}
    name = _names(path)
    default_query = BGE_QUERY_PROMPT if "bge" in name and "bge-m3" not in name else ""
    if _base_of(path) is not None:
        default_query = ""
    plain = not (path / "modules.json").exists()
    return Recipe(
        pooling=("cls" if "bge" in name else "mean") if plain else None,
        query_prompt=prompts.get("query") or default_query,
        document_prompt=prompts.get("document") or prompts.get("passage") or "",
        precision=precision,
    )


def is_bge(path: Path) -> bool:
    """Whether the encoder is of the BGE family: one that was trained here if its base is, else by its name."""
    base = _base_of(path)
    return bool(base["bge"]) if base is not None else "bge" in _names(path)


def fingerprint_of(path: Path, precision: Precision = "float32") -> str:
    """What a collection is bound to: equal fingerprints give equal vectors. Needs no loaded model."""
    parts: dict[str, Any] = {"model": read_manifest(path).sha256, **asdict(recipe_of(path, precision))}
    if precision == "int8":
        parts["int8_scheme"] = INT8_SCHEME
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def precision_bound_to(path: Path, fingerprint: str) -> Precision | None:
    """The precision with which the folder's encoder has that fingerprint; None: it is of another encoder."""
    return next((precision for precision in PRECISIONS if fingerprint_of(path, precision) == fingerprint), None)


def trained_by(path: Path) -> str | None:
    """The folder's name of the run here that trained this encoder; None: none did."""
    if _base_of(path) is None:
        return None
    run = _read_if_there(path / TRAINING).get("run")
    return run if isinstance(run, str) else None


def _base_of(path: Path) -> dict[str, Any] | None:
    """What the encoder was trained from, if that was here. Others, too, write files of this name."""
    training = _read_if_there(path / TRAINING)
    base = training.get("base") if isinstance(training, dict) else None
    return base if isinstance(base, dict) and "bge" in base else None


def _names(path: Path) -> str:
    return f"{path.name} {_read_if_there(path / 'config.json').get('_name_or_path', '')}".lower()


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
