"""Where everything lives: the folders and sockets under LOCAL_LLM_HOME."""

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from local_llm.state_settings import StateSettings

# sockaddr_un holds 108 bytes with the closing zero (unix(7)).
SOCKET_PATH_BYTES = 107


IN_SQLITE = StateSettings()  # type: ignore[call-arg]


@dataclass(frozen=True)
class Home:
    root: Path
    state: StateSettings = IN_SQLITE

    @property
    def state_database(self) -> Path:
        """Where the state is in SQLite: without state.url."""
        return self.root / "state.db"

    @property
    def host(self) -> str:
        """Tells this home from those of other hosts, and of this one: chosen once, not the machine's name."""
        path = self.run / "host"
        if not path.exists():
            self.run.mkdir(parents=True, exist_ok=True)
            chosen = path.with_name(f".host.{uuid4().hex}")
            chosen.write_text(uuid4().hex[:12])
            with suppress(FileExistsError):  # by another process of ours
                os.link(chosen, path)
            chosen.unlink()
        return path.read_text()

    @property
    def settings_file(self) -> Path:
        return self.root / "settings.toml"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def collections(self) -> Path:
        return self.root / "collections"

    @property
    def files(self) -> Path:
        return self.root / "files"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def job_locks(self) -> Path:
        """Of hosts that share the state and, with it, the folder of jobs."""
        return self.jobs / ".locks"

    @property
    def retrievers(self) -> Path:
        """Runs that train encoders: data, reports, and models that were not published."""
        return self.root / "retrievers"

    @property
    def batches(self) -> Path:
        """What was answered of batches that are not finished."""
        return self.root / "batches"

    @property
    def evaluations(self) -> Path:
        """Reports of evaluations, and the answers that were asked for."""
        return self.root / "evaluations"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def derived(self) -> Path:
        """What was made from the models: it may be deleted, and is made again when needed."""
        return self.root / "derived"

    @property
    def run(self) -> Path:
        """Locks, process records and sockets: nothing here outlives a reboot's meaning."""
        return self.root / "run"

    def ensure(self) -> "Home":
        """Makes the folders, readable by their owner only."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (
            self.models,
            self.adapters,
            self.collections,
            self.derived,
            self.files,
            self.jobs,
            self.retrievers,
            self.batches,
            self.evaluations,
            self.logs,
            self.run,
        ):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self

    def socket(self, name: str) -> Path:
        """The Unix socket of a process. A home too deep for a socket's path gets a short folder of its own."""
        path = self.run / f"{name}.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
            return path
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"local-llm-{os.getuid()}-{digest}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        return folder / f"{name}.sock"
