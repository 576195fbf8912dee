"""What lies under LOCAL_LLM_HOME and nothing refers to: left by killed processes, deleted rows, models that went.

Rows come before folders or after them, depending on what is made, so an unnamed folder may be in the making: only
what nobody has touched for a day is garbage.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from local_llm.fileio import bytes_below
from local_llm.home import Home
from local_llm.locks import holder_of
from local_llm.run_folders import REQUEST, RETRIEVER, RUN_LOCK, RunFolder, run_folders
from local_llm.state import Adapter, Collection, File, Job, Project, State
from local_llm.state_mark import MARK

DAY_SECONDS = 24 * 3600
UNTOUCHED_SECONDS = DAY_SECONDS
DERIVED_PREFIX = "encoder-"


@dataclass(frozen=True)
class Garbage:
    kind: str
    path: Path
    bytes: int

    def remove(self) -> None:
        """Harmless if another was faster."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


def find_garbage(
    place: Home, state: State, is_derived: Callable[[str], bool], *, unpublished_days: int | None = None
) -> list[Garbage]:
    """`is_derived` says whether a folder of derived/ is made of a model that is here, by its name.

    `unpublished_days`: runs that train encoders and published none (unfinished, or not better) are garbage once
    nobody touched them for so many days; None: they stay, as their project does.
    """
    with state.reading() as session:
        tables = {
            "file": (place.files, set(session.scalars(select(File.id)))),
            "adapter": (place.adapters, set(session.scalars(select(Adapter.id)))),
            "collection": (place.collections, set(session.scalars(select(Collection.id)))),
            "job": (place.jobs, set(session.scalars(select(Job.id)))),
        }
    found = []
    for kind, (folder, known) in tables.items():
        known |= {MARK, place.job_locks.name}
        found += [_garbage(kind, path) for path in _untouched(folder) if path.name not in known]
    for path in _untouched(place.derived):
        if path.name.startswith(DERIVED_PREFIX) and not is_derived(path.name):
            found.append(_garbage("derived encoder", path))
    return found + list(_runs(place, state, unpublished_days))


def _runs(place: Home, state: State, unpublished_days: int | None) -> Iterator[Garbage]:
    """Of projects that are gone, and such as were never begun."""
    with state.reading() as session:
        projects = set(session.scalars(select(Project.id)))
    for run in run_folders(place):
        untouched = time.time() - _touched(run.path)
        old = unpublished_days is not None and not run.published and untouched > unpublished_days * DAY_SECONDS
        idle = untouched > UNTOUCHED_SECONDS and holder_of(run.path / RUN_LOCK) is None
        if idle and (_lost(run, projects) or old):
            yield _garbage(run.kind, run.path)


def _lost(run: RunFolder, projects: set[str]) -> bool:
    """What does not say whose it is stays, unless it was killed before it could: somebody may still mend it."""
    if run.project_id is None:
        return run.kind == RETRIEVER and not (run.path / REQUEST).exists()
    return run.project_id not in projects


def _touched(folder: Path) -> float:
    """When anything in it was, last."""
    latest = 0.0
    for root, _, names in os.walk(folder):
        for path in (Path(root), *(Path(root, name) for name in names)):
            with suppress(FileNotFoundError):  # removed meanwhile
                latest = max(latest, path.lstat().st_mtime)
    return latest


def _untouched(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        try:
            if path.lstat().st_mtime < time.time() - UNTOUCHED_SECONDS:
                yield path
        except FileNotFoundError:  # removed meanwhile
            continue


def _garbage(kind: str, path: Path) -> Garbage:
    return Garbage(kind, path, bytes_below(path) if path.is_dir() else path.lstat().st_size)
