"""The registry of adapters: fine-tuned models by their `ft:` names. Immutable once published."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from local_llm.errors import IntegrityError, InvalidInputError, ModelNotFoundError
from local_llm.fileio import read_json, sha256_of, staged_directory, write_json
from local_llm.identifiers import is_suffix, new_id, now
from local_llm.models import MANIFEST, Model, record_files
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import Adapter, State

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
NAME_ID_LENGTH = 8


@dataclass(frozen=True)
class AdapterRun:
    """How an adapter came to be: goes into its manifest."""

    data_sha256: str
    settings: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]
    job_id: str | None = None


class AdapterRegistry:
    def __init__(self, settings: Settings, state: State):
        self._settings = settings
        self._state = state

    def publish(
        self, source: Path, *, base: Model, suffix: str | None, project_id: str, run: AdapterRun
    ) -> Adapter:
        """Copies the two files of a PEFT adapter out of `source` and lists it under a new `ft:` name.

        Raises: InvalidInputError if the engine could not serve it.
        """
        config = refuse_unservable(source, self._settings.engine.max_lora_rank)
        name = self._new_name(base.name, suffix)
        identifier = new_id("adapter-")
        target = self.path(identifier)
        with staged_directory(target) as staging:
            for file in (CONFIG, WEIGHTS):
                shutil.copyfile(source / file, staging / file)
            manifest = {
                "base_model": base.name,
                "base_sha256": base.manifest.sha256,
                "created_at": now(),
                "files": {name: asdict(record) for name, record in record_files(staging).items()},
                **asdict(run),
            }
            write_json(staging / MANIFEST, manifest)
        row = Adapter(
            id=identifier,
            project_id=project_id,
            name=name,
            base_model=base.name,
            base_sha256=base.manifest.sha256,
            rank=config["r"],
            manifest_sha256=sha256_of(target / MANIFEST),
            job_id=run.job_id,
            allow=None,
            created_at=now(),
        )
        with self._state.session() as session:
            session.add(row)
        return row

    def list(self, caller: Caller) -> list[Adapter]:
        with self._state.reading() as session:
            query = select(Adapter).where(Adapter.project_id == caller.project_id).order_by(Adapter.created_at)
            return [row for row in session.scalars(query) if caller.may_see(row.allow)]

    def get(self, name: str, caller: Caller) -> Adapter:
        """Raises: ModelNotFoundError, also for an adapter that the caller may not see."""
        with self._state.reading() as session:
            row = session.scalars(select(Adapter).where(Adapter.name == name)).first()
        if row is None or row.project_id != caller.project_id or not caller.may_see(row.allow):
            raise ModelNotFoundError(
                f"The model `{name}` does not exist or you do not have access to it.", param="model"
            )
        return row

    def path(self, identifier: str) -> Path:
        return self._settings.place.adapters / identifier

    def verify(self, adapter: Adapter) -> Path:
        """The adapter's folder, once its files are seen to be the published ones.

        Raises: IntegrityError.
        """
        path = self.path(adapter.id)
        if not (path / MANIFEST).exists() or sha256_of(path / MANIFEST) != adapter.manifest_sha256:
            raise IntegrityError(f"the manifest of {adapter.name} in {path} is not the published one")
        for name, record in read_json(path / MANIFEST)["files"].items():
            if not (path / name).exists() or sha256_of(path / name) != record["sha256"]:
                raise IntegrityError(f"{name} of {adapter.name} in {path} is not the published one")
        return path

    def manifest(self, adapter: Adapter) -> dict[str, Any]:
        """How the adapter came to be."""
        return read_json(self.path(adapter.id) / MANIFEST)

    def delete(self, adapter: Adapter) -> None:
        """Forgets an adapter: first its row, so that nobody finds a name without files."""
        with self._state.session() as session:
            session.delete(session.get_one(Adapter, adapter.id))
        shutil.rmtree(self.path(adapter.id), ignore_errors=True)

    def _new_name(self, base: str, suffix: str | None) -> str:
        if suffix and not is_suffix(suffix):
            raise InvalidInputError(
                f"suffix {suffix!r}: expected up to 64 letters, digits, '.', '_' and '-'", param="suffix"
            )
        return f"ft:{base}:{self._settings.organization}:{suffix or ''}:{new_id('')[:NAME_ID_LENGTH]}"


def refuse_unservable(folder: Path, max_rank: int) -> dict[str, Any]:
    """The adapter's configuration, if vLLM can load it.

    Raises: InvalidInputError. Source of the rules: vLLM's lora/peft_helper.py.
    """
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).exists()]
    if missing:
        raise InvalidInputError(f"{folder} is not a PEFT adapter: {' and '.join(missing)} not found")
    try:
        config: dict[str, Any] = read_json(folder / CONFIG)
    except ValueError as error:
        raise InvalidInputError(f"{folder / CONFIG} is no adapter's configuration: {error}") from None
    reasons = []
    if config.get("peft_type") != "LORA":
        reasons.append(f"its type is {config.get('peft_type')}; expected LORA")
    if config.get("r", 0) > max_rank:
        reasons.append(f"its rank is {config['r']}; the engine serves up to {max_rank} (engine.max_lora_rank)")
    if config.get("use_dora"):
        reasons.append("it uses DoRA")
    if config.get("bias", "none") != "none":
        reasons.append(f"it trains biases ({config['bias']})")
    if config.get("modules_to_save"):
        reasons.append(f"it replaces whole modules ({', '.join(config['modules_to_save'])})")
    if reasons:
        raise InvalidInputError(f"the adapter in {folder} cannot be served: {'; '.join(reasons)}")
    return config
