"""The process that trains a retriever for the command line: what it tells its parent lies in the run's folder."""

import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from local_llm.errors import LocalLLMError
from local_llm.fileio import read_json, write_json
from local_llm.settings import Settings
from training.failures import StoppedError

PROGRESS, FAILURE = "progress.json", "failure.json"
SECONDS_BETWEEN = 0.5


@dataclass(frozen=True)
class Progress:
    done: int
    total: int
    note: str


def run_child(folder: Path, settings: Settings, stop: threading.Event) -> None:
    """Trains what the folder says; goes on where a run before it was ended.

    Raises: LocalLLMError, left in the folder as well, unless it was told to stop.
    """
    from training.retriever.run import train_retriever

    (folder / FAILURE).unlink(missing_ok=True)
    share = settings.gpu.training_memory_share if settings.gpu.sharing == "split" else None
    try:
        train_retriever(folder, report=_Teller(folder / PROGRESS), stop=stop, gpu_memory_share=share)
    except StoppedError:
        raise
    except LocalLLMError as error:
        write_json(folder / FAILURE, {"message": error.message, "hint": error.hint})
        raise


def progress_of(folder: Path) -> Progress | None:
    path = folder / PROGRESS
    return Progress(**read_json(path)) if path.exists() else None


def failure_of(folder: Path) -> LocalLLMError | None:
    """Why the last attempt ended, in our words, if it had some."""
    path = folder / FAILURE
    return LocalLLMError(**read_json(path)) if path.exists() else None


class _Teller:
    def __init__(self, path: Path):
        self._path, self._told_at = path, 0.0

    def __call__(self, done: int, total: int, note: str) -> None:
        if done == total or time.monotonic() - self._told_at >= SECONDS_BETWEEN:
            self._told_at = time.monotonic()
            write_json(self._path, asdict(Progress(done, total, note)))
