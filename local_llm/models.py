"""The store of local models: one folder each, with a manifest that holds the hash of every file.

A model is used only if its files are the ones that were imported. Nothing is ever fetched: models come from
folders, GGUF files, or packages that carry one (local_llm/embedded.py).
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from local_llm.errors import ConflictError, IntegrityError, InvalidInputError, ModelNotFoundError
from local_llm.fileio import read_json, remove_staging, sha256_of, staged_directory, write_json
from local_llm.identifiers import is_name, now
from local_llm.locks import exclusive_lock

MANIFEST = "manifest.json"
VERIFIED = "verified.json"

Kind = Literal["base", "encoder", "reranker", "adapter"]


@dataclass(frozen=True)
class FileRecord:
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    name: str
    kind: Kind
    source: str
    licence: str
    imported_at: int
    files: dict[str, FileRecord]

    @property
    def sha256(self) -> str:
        """One hash for the whole model: of its files' names and hashes, nothing else."""
        return fingerprint(self.files)

    @property
    def bytes(self) -> int:
        return sum(record.bytes for record in self.files.values())


@dataclass(frozen=True)
class Model:
    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name


class ModelStore:
    def __init__(self, root: Path):
        self.root = root

    def list(self) -> list[Model]:
        found = sorted(self.root.glob(f"*/{MANIFEST}"))
        return [self._open(path.parent) for path in found if not path.parent.name.startswith(".")]

    def find(self, name: str) -> Model | None:
        path = self.root / name
        return self._open(path) if is_name(name) and (path / MANIFEST).exists() else None

    def get(self, name: str, kind: Kind | None = None) -> Model:
        """A model whose files were seen to match their hashes.

        Raises: ModelNotFoundError, IntegrityError; InvalidInputError if it is of another kind.
        """
        model = self.find(name)
        if model is None:
            raise ModelNotFoundError(
                f"there is no model {name!r} in {self.root}",
                hint=f"local-llm models import PATH --name {name}, or: local-llm models list",
                param="model",
            )
        if kind and model.manifest.kind != kind:
            raise InvalidInputError(f"{name!r} is of kind {model.manifest.kind}; expected {kind}", param="model")
        verify(model)
        return model

    def import_folder(
        self, source: Path, *, name: str, licence: str = "unknown", origin: str | None = None
    ) -> Model:
        """Copies a model folder in Hugging Face's layout into the store.

        Raises: InvalidInputError if it holds no model or its own manifest does not match its files.
        """
        kind = kind_of_folder(source)
        expected = _expected_hashes(source)

        def copy(target: Path) -> None:
            for path in _model_files(source):
                destination = target / path.relative_to(source)
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, destination)

        return self.publish(
            copy, name=name, kind=kind, licence=licence, origin=origin or str(source), expected=expected
        )

    def publish(
        self,
        write: Callable[[Path], None],
        *,
        name: str,
        kind: Kind,
        licence: str,
        origin: str,
        expected: dict[str, str] | None = None,
    ) -> Model:
        """Lets `write` fill an empty folder and publishes it whole, or not at all.

        `expected` maps file names to the sha256 they must have.
        """
        if not is_name(name):
            raise InvalidInputError(
                f"{name!r} cannot name a model; expected letters, digits, '.', '_' and '-'", param="name"
            )
        with exclusive_lock(self.root / ".lock", "the model store", wait=True):
            remove_staging(self.root)
            if (self.root / name).exists():
                raise ConflictError(
                    f"a model {name!r} is already there", hint="choose another --name", param="name"
                )
            with staged_directory(self.root / name) as staging:
                write(staging)
                manifest = Manifest(name, kind, origin, licence, now(), record_files(staging))
                _refuse_unexpected(manifest, expected or {})
                write_json(staging / MANIFEST, asdict(manifest))
        return self._open(self.root / name)

    def _open(self, path: Path) -> Model:
        return Model(path, read_manifest(path))


def read_manifest(path: Path) -> Manifest:
    try:
        values = read_json(path / MANIFEST)
        files = {name: FileRecord(**record) for name, record in values.pop("files").items()}
        return Manifest(files=files, **values)
    except (OSError, json.JSONDecodeError, TypeError, KeyError) as error:
        raise IntegrityError(
            f"the manifest of {path} cannot be read: {error}",
            hint=f"delete {path} and import the model again with: local-llm models import",
        ) from None


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Name, hash and size of every file below `folder`."""
    return {
        str(path.relative_to(folder)): FileRecord(sha256_of(path), path.stat().st_size)
        for path in _model_files(folder)
    }


def fingerprint(files: dict[str, FileRecord]) -> str:
    lines = sorted(f"{record.sha256}  {name}\n" for name, record in files.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def verify(model: Model, *, thorough: bool = False) -> None:
    """Checks a model's files against its manifest.

    A file is hashed again only if its size or time differ from when it last matched, unless `thorough`.

    Raises: IntegrityError naming every file that is missing or differs.
    """
    seen_path = model.path.parent / f".{model.path.name}.{VERIFIED}"
    seen = {} if thorough or not seen_path.exists() else read_json(seen_path)
    wrong, fresh = [], {}
    for name, record in model.manifest.files.items():
        path = model.path / name
        if not path.exists():
            wrong.append(f"{name} is missing")
            continue
        stat = path.stat()
        mark = [stat.st_size, stat.st_mtime_ns, record.sha256]
        if seen.get(name) != mark and sha256_of(path) != record.sha256:
            wrong.append(f"{name} does not match its hash {record.sha256[:12]}…")
        fresh[name] = mark
    if wrong:
        raise IntegrityError(
            f"the model {model.name!r} is not what was imported: {'; '.join(wrong)}",
            hint=f"delete {model.path} and import it again with: local-llm models import",
        )
    if fresh != seen:
        write_json(seen_path, fresh)


def kind_of_folder(folder: Path) -> Kind:
    """What sort of model a folder in Hugging Face's layout holds.

    Raises: InvalidInputError if none.
    """
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is not a folder", hint="give a model's folder or a .gguf file")
    if (folder / "adapter_config.json").exists():
        return "adapter"
    if (folder / "modules.json").exists():
        return "reranker" if _is_cross_encoder(folder / "config_sentence_transformers.json") else "encoder"
    if not (folder / "config.json").exists():
        raise InvalidInputError(
            f"{folder} holds no model: neither config.json nor adapter_config.json is there",
            hint="give the folder that holds them",
        )
    try:
        config = read_json(folder / "config.json")
        architectures = config.get("architectures") or []
    except (ValueError, AttributeError) as error:
        raise InvalidInputError(f"{folder / 'config.json'} is no model's configuration: {error}") from None
    if any(name.endswith("ForSequenceClassification") for name in architectures) and _labels(config) == 1:
        return "reranker"
    causal = any(name.endswith(("ForCausalLM", "ForConditionalGeneration")) for name in architectures)
    return "base" if causal else "encoder"


def _is_cross_encoder(file: Path) -> bool:
    return file.exists() and read_json(file).get("model_type") == "CrossEncoder"


def _labels(config: dict[str, Any]) -> int:
    """Of a classifier. Source: transformers' configurations, which write `id2label` and have two by default."""
    return len(config["id2label"]) if "id2label" in config else config.get("num_labels", 2)


def _model_files(folder: Path) -> list[Path]:
    """Every file that belongs to the model; not our manifest, nor hidden files and folders."""
    found = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and str(relative) != MANIFEST:
            found.append(path)
    return found


def _expected_hashes(folder: Path) -> dict[str, str]:
    """The hashes a folder brings along: a manifest of ours, as bundles and other stores have it."""
    if not (folder / MANIFEST).exists():
        return {}
    return {name: record.sha256 for name, record in read_manifest(folder).files.items()}


def _refuse_unexpected(manifest: Manifest, expected: dict[str, str]) -> None:
    for name, sha256 in expected.items():
        record = manifest.files.get(name)
        found = "it is missing" if record is None else f"its hash is {record.sha256}"
        if record is None or record.sha256 != sha256:
            raise IntegrityError(
                f"{name} of {manifest.name!r} was refused: expected sha256 {sha256}, but {found}",
                hint="fetch the file again from where it came",
            )
