"""Step checkpoints of a running job: what it goes on from after a crash.

The training library writes one file after the other into a checkpoint's folder. A checkpoint counts only once it
is sealed: everything flushed to the disk, then a seal written beside it. Whatever has no seal is rubbish.
"""

import shutil
from pathlib import Path

from local_llm.fileio import fsync_path, read_json, write_json

SEAL = "sealed.json"
PREFIX = "checkpoint-"  # the training library's own naming

# In a job's folder:
STEPS = "steps"  # step checkpoints
EPOCHS = "epochs"  # the adapters after each epoch, named after its last step
PROCESS = "process-"  # the log of another than the first of several processes that train together


def folder_of(steps: Path, step: int) -> Path:
    return steps / f"{PREFIX}{step}"


def seal(steps: Path, step: int, *, seconds: float) -> None:
    """Makes the checkpoint of `step` last and deletes all others. `seconds`: what training has taken so far."""
    folder = folder_of(steps, step)
    for path in folder.rglob("*"):
        fsync_path(path)
    write_json(folder / SEAL, {"step": step, "seconds": seconds})
    fsync_path(steps)
    for other in steps.glob(f"{PREFIX}*"):
        if other != folder:
            _delete(other)


def newest(steps: Path) -> Path | None:
    """The sealed checkpoint to go on from, if there is one; everything unsealed is deleted."""
    sealed = []
    for folder in steps.glob(f"{PREFIX}*"):
        if (folder / SEAL).exists():
            sealed.append(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return max(sealed, key=step_of, default=None)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def seconds_of(folder: Path) -> float:
    return float(read_json(folder / SEAL)["seconds"])


def discard(job_folder: Path) -> None:
    """Frees what a job's folder holds beside its logs: nothing will go on from it."""
    for folder in (job_folder / STEPS, job_folder / EPOCHS, *job_folder.glob(f"{PROCESS}*")):
        shutil.rmtree(folder, ignore_errors=True)


def _delete(folder: Path) -> None:
    # Without its seal first, a folder that is half deleted when we die is known for what it is.
    (folder / SEAL).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
