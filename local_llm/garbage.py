"""What lies under LOCAL_LLM_HOME and nothing refers to: left by killed processes, deleted rows, models that went.

Rows come before folders or after them, depending on what is made, so an unnamed folder may be in the making: only
what nobody has touched for a day is garbage.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from local_llm.fileio import bytes_below
from local_llm.home import Home
from local_llm.state import Adapter, Collection, File, Job, State

UNTOUCHED_SECONDS = 24 * 3600
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


def find_garbage(place: Home, state: State, is_derived: Callable[[str], bool]) -> list[Garbage]:
    """`is_derived` says whether a folder of derived/ is made of a model that is here, by its name."""
    with state.reading() as session:
        tables = {
            "file": (place.files, set(session.scalars(select(File.id)))),
            "adapter": (place.adapters, set(session.scalars(select(Adapter.id)))),
            "collection": (place.collections, set(session.scalars(select(Collection.id)))),
            "job": (place.jobs, set(session.scalars(select(Job.id)))),
        }
    found = []
    for kind, (folder, known) in tables.items():
        found += [_garbage(kind, path) for path in _untouched(folder) if path.name not in known]
    for path in _untouched(place.derived):
        if path.name.startswith(DERIVED_PREFIX) and not is_derived(path.name):
            found.append(_garbage("derived encoder", path))
    return found


def _untouched(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        try:
            if path.lstat().st_mtime < time.time() - UNTOUCHED_SECONDS:
                yield path
        except FileNotFoundError:  # removed meanwhile
            continue


def _garbage(kind: str, path: Path) -> Garbage:
    return Garbage(kind, path, bytes_below(path) if path.is_dir() else path.lstat().st_size)
