"""A trained encoder becomes a model of the store: its folder, what it was trained from and how, and a card."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from local_llm.encoder_recipe import TRAINING, is_bge
from local_llm.errors import IntegrityError
from local_llm.fileio import read_json, write_file, write_json
from local_llm.model_card import CARD
from local_llm.models import MANIFEST, Model, ModelStore, fingerprint, read_manifest, record_files
from training.retriever import data as data_files
from training.retriever.data import Data
from training.retriever.guard import NotBetterError

LIBRARIES = ("sentence-transformers", "transformers", "torch", "peft")
REPORT = "report.md"


def provenance(data: Data, folder: Path) -> dict[str, Any]:
    """What the encoder was trained from, and how. No question is in it: models are shared between projects."""
    return {
        "run": folder.name,
        "base": {"name": data.encoder.name, "sha256": _sha256(data.encoder), "bge": is_bge(data.encoder)},
        "data_sha256": data_files.sha256(folder),
        "settings": data.settings.to_json(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def publish(store: ModelStore, folder: Path, name: str) -> Model:
    """Publishes the encoder that the finished run in `folder` trained.

    Raises: NotBetterError if it is not certainly better than the one it was trained from; ConflictError if the
    name is taken.
    """
    outcome = read_json(folder / "outcome.json")
    if not outcome["better"]:
        raise NotBetterError(
            f"{outcome['reason']}: it is kept aside in {folder / 'model'}, and not published",
            hint=f"read {folder / REPORT}: which questions got worse, and what was odd in the data",
        )
    there = store.find(name)
    if there is not None and _run_of(there) == folder.name:  # published, and killed before that was noted
        return there
    model = folder / "model"
    base = outcome["provenance"]["base"]["name"]

    def write(target: Path) -> None:
        shutil.copytree(model, target, dirs_exist_ok=True)
        training = {**outcome["provenance"], "trained": outcome["trained"], "metrics": outcome["metrics"]}
        write_json(target / TRAINING, training)
        write_file(target / CARD, _card(name, training).encode())

    return store.publish(write, name=name, kind="encoder", licence=_licence(store, base), origin=f"trained: {base}")


def _run_of(model: Model) -> str | None:
    path = model.path / TRAINING
    return read_json(path).get("run") if path.exists() else None


def _licence(store: ModelStore, base: str) -> str:
    model = store.find(base)
    return model.manifest.licence if model is not None else "unknown"


def _sha256(encoder: Path) -> str:
    """Of the store's manifest; of the files themselves where there is none."""
    if (encoder / MANIFEST).exists():
        return read_manifest(encoder).sha256
    if not encoder.is_dir():
        raise IntegrityError(f"the encoder's folder {encoder} is gone", hint="local-llm models list")
    return fingerprint(record_files(encoder))


def _card(name: str, training: dict[str, Any]) -> str:
    """Markdown with the metadata block of Hugging Face's model cards."""
    base, metrics = training["base"], training["metrics"]
    measured = [_line(side, metrics[side]) for side in ("dev", "test") if metrics.get(side)]
    return "\n".join(
        [
            "---",
            f"base_model: {json.dumps(base['name'])}",
            "library_name: sentence-transformers",
            "tags: [sentence-similarity, retrieval]",
            "---",
            "",
            f"# {name}",
            "",
            f"A text encoder for retrieval, trained from `{base['name']}` (sha256 {base['sha256']}) on questions",
            "and the documents that answer them. Pooling and prompts are those of its base.",
            "",
            "| measured on | questions | nDCG@10 before | after | change, 95 % |",
            "|---|---|---|---|---|",
            *measured,
            "",
            "Documents of a whole collection were ranked by their best passage; no measured question shares a",
            "document with a trained one. Settings, versions and the data's hash are in `training.json`.",
            "",
        ]
    )


def _line(side: str, one: dict[str, Any]) -> str:
    gain = one["differences"]["ndcg_10"]
    return (
        f"| {side} | {one['questions']} | {one['before']['ndcg_10']:.4f} | {one['after']['ndcg_10']:.4f} | "
        f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}] |"
    )
