"""The registry of adapters: fine-tuned models by their `ft:` names. Immutable once published.

An adapter's folder is whole on the disk before its row exists, and its row is gone before its folder is: whoever
finds a name finds the files, whatever was killed when.
"""

import logging
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select

from local_llm.errors import ConflictError, IntegrityError, InvalidInputError, ModelNotFoundError
from local_llm.fileio import read_json, remove_staging, sha256_of, staged_directory, write_file, write_json
from local_llm.fitting import refuse_misfit
from local_llm.identifiers import is_suffix, new_id, now
from local_llm.model_card import CARD, model_card
from local_llm.models import MANIFEST, Model, record_files
from local_llm.permissions import Caller
from local_llm.servable import CONFIG, WEIGHTS, ranks_of, refuse_unservable
from local_llm.settings import Settings
from local_llm.state import Adapter, JobCheckpoint, State
from local_llm.state_mark import MARK

PREFIX = "ft:"
NAME_ID_LENGTH = 8

log = logging.getLogger("local_llm.adapters")


@dataclass(frozen=True)
class AdapterRun:
    """How an adapter came to be: goes into its manifest."""

    data_sha256: str
    settings: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]
    job_id: str | None = None


@dataclass(frozen=True)
class Published:
    """What an engine that starts may be asked to serve."""

    count: int = 0
    largest_rank: int = 0


class AdapterRegistry:
    def __init__(self, settings: Settings, state: State):
        self._settings = settings
        self._state = state

    def new_name(self, base_name: str, suffix: str | None) -> str:
        """A name that no adapter has. A job takes one when its training begins, and names its checkpoints after it.

        Raises: InvalidInputError.
        """
        if suffix and not is_suffix(suffix):
            raise InvalidInputError(
                f"suffix {suffix!r}: expected up to 64 letters, digits, '.', '_' and '-'", param="suffix"
            )
        identifier = new_id("")[:NAME_ID_LENGTH]
        return f"{PREFIX}{base_name}:{self._settings.organization}:{suffix or ''}:{identifier}"

    def publish(
        self,
        source: Path,
        *,
        base: Model,
        name: str,
        project_id: str,
        run: AdapterRun,
        step_number: int | None = None,
        allow: Sequence[str] | None = None,
    ) -> Adapter:
        """Copies the two files of a PEFT adapter out of `source`, writes its model card and lists it as `name`.

        `step_number` is that of a checkpoint; `allow`: as in its row.

        Raises: InvalidInputError if the engine could not serve it on this base; ConflictError if the name is taken.
        """
        config = refuse_unservable(source, self._settings.engine.largest_lora_rank)
        refuse_misfit(source, config, base.path)
        identifier = new_id("adapter-")
        manifest = {
            "name": name,
            "base_model": base.name,
            "base_sha256": base.manifest.sha256,
            "base_licence": base.manifest.licence,
            "created_at": now(),
            "lora": _lora_facts(config),
            "step_number": step_number,
            **asdict(run),
        }
        with self._lock():
            self._refuse_taken(name)
            manifest_sha256 = self._write(identifier, source, manifest)
            row = Adapter(
                id=identifier,
                project_id=project_id,
                name=name,
                base_model=base.name,
                base_sha256=base.manifest.sha256,
                rank=config["r"],
                manifest_sha256=manifest_sha256,
                job_id=run.job_id,
                step_number=step_number,
                allow=None if allow is None else sorted(allow),
                created_at=manifest["created_at"],
            )
            with self._state.session() as session:
                session.add(row)
        return row

    def list(self, caller: Caller) -> list[Adapter]:
        """Finished models and checkpoints that the caller may see, the oldest first."""
        with self._state.reading() as session:
            query = select(Adapter).where(Adapter.project_id == caller.project_id)
            rows = session.scalars(query.order_by(Adapter.created_at, Adapter.name))
            return [row for row in rows if caller.may_see(row.allow)]

    def get(self, name: str, caller: Caller) -> Adapter:
        """Raises: ModelNotFoundError, also for an adapter that the caller may not see."""
        with self._state.reading() as session:
            row = session.scalars(select(Adapter).where(Adapter.name == name)).first()
        if row is None or row.project_id != caller.project_id or not caller.may_see(row.allow):
            raise ModelNotFoundError(
                f"The model `{name:.160}` does not exist or you do not have access to it.", param="model"
            )
        return row

    def hidden(self, caller: Caller, job_ids: Sequence[str]) -> set[str]:
        """The names of models of these jobs that the caller may not see."""
        if caller.administers:
            return set()
        with self._state.reading() as session:
            rows = session.scalars(select(Adapter).where(Adapter.job_id.in_(job_ids)))
            return {row.name for row in rows if not caller.may_see(row.allow)}

    def published(self, base_sha256: str) -> Published:
        """All projects' adapters of one base, together."""
        with self._state.reading() as session:
            rows = list(session.scalars(select(Adapter).where(Adapter.base_sha256 == base_sha256)))
        return Published(len(rows), max((self._largest_rank(row) for row in rows), default=0))

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
        """Forgets an adapter, and that it was a job's checkpoint; harmless if another process was faster."""
        with self._state.session() as session:
            session.execute(delete(JobCheckpoint).where(JobCheckpoint.model_name == adapter.name))
            session.execute(delete(Adapter).where(Adapter.id == adapter.id))
        shutil.rmtree(self.path(adapter.id), ignore_errors=True)

    def remove_abandoned(self) -> None:
        """Deletes what killed processes left: half-written folders, and whole ones that no row names. Called when a
        server or a trainer starts.
        """
        root = self._settings.place.adapters
        with self._lock():
            remove_staging(root)
            with self._state.reading() as session:
                known = set(session.scalars(select(Adapter.id)))
            for path in root.iterdir():
                if path.name not in known and path.name != MARK:
                    shutil.rmtree(path, ignore_errors=True)

    def _largest_rank(self, adapter: Adapter) -> int:
        """Modules may have ranks of their own, which only its configuration names. One that nobody can read is no
        reason for an engine not to start: the adapter is refused when it is asked."""
        file = self.path(adapter.id) / CONFIG
        try:
            ranks = [int(rank) for rank in ranks_of(read_json(file))]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.error("%s of %s cannot be read: %s", file, adapter.name, error)
            return adapter.rank
        return max(ranks)

    def _lock(self) -> AbstractContextManager[None]:
        """Held from an adapter's first byte to its row: what no row names while nobody holds it is abandoned."""
        return self._state.exclusive(self._settings.place.run / "adapters.lock", "the adapter registry")

    def _refuse_taken(self, name: str) -> None:
        with self._state.reading() as session:
            taken = session.scalars(select(Adapter.id).where(Adapter.name == name)).first()
        if taken is not None:
            raise ConflictError(f"a model {name!r} is already there; published models do not change", param="model")

    def _write(self, identifier: str, source: Path, manifest: dict[str, Any]) -> str:
        """Publishes the folder; returns the hash of its manifest."""
        target = self.path(identifier)
        with staged_directory(target) as staging:
            for file in (CONFIG, WEIGHTS):
                shutil.copyfile(source / file, staging / file)
            write_file(staging / CARD, model_card(manifest).encode())
            files = {file: asdict(record) for file, record in record_files(staging).items()}
            write_json(staging / MANIFEST, {**manifest, "files": files})
        return sha256_of(target / MANIFEST)


def checkpoint_name(name: str, step_number: int) -> str:
    """The name of a checkpoint of the job whose finished model will bear `name`."""
    return f"{name}:ckpt-step-{step_number}"


def _lora_facts(config: dict[str, Any]) -> dict[str, Any]:
    targets = config["target_modules"]
    return {
        "rank": config["r"],
        "alpha": config["lora_alpha"],
        "rslora": bool(config.get("use_rslora")),
        "modules": sorted(targets) if isinstance(targets, list) else [str(targets)],
    }
