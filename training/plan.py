"""What a job trains: settled when it first begins, and held to when it goes on after a crash.

Settings may have changed between the two; a run that mixed two ranks or learning rates would be neither.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from local_llm.fileio import read_json, write_json
from training.recipe import Recipe

PLAN = "plan.json"


@dataclass(frozen=True)
class Sources:
    """What must be the same for a run to go on."""

    base_sha256: str
    data_sha256: str
    rows_sha256: str  # of the tokens: a setting may cut them otherwise

    @classmethod
    def of(cls, base_sha256: str, data_sha256: str, rows: Sequence[Any]) -> "Sources":
        digest = hashlib.sha256()
        for row in rows:
            digest.update(json.dumps(row.columns(), sort_keys=True).encode())
        return cls(base_sha256, data_sha256, digest.hexdigest())


def begun(folder: Path, sources: Sources) -> Recipe | None:
    """The recipe that the job in `folder` began to train the very same with; None: it did not."""
    path = folder / PLAN
    if not path.exists():
        return None
    plan = read_json(path)
    return Recipe(**plan["recipe"]) if plan["sources"] == asdict(sources) else None


def begin(folder: Path, sources: Sources, recipe: Recipe) -> None:
    """Empties the folder and settles what will be trained in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / PLAN, {"sources": asdict(sources), "recipe": recipe.to_json()})


def await_begun(folder: Path, sources: Sources) -> Recipe:
    """The recipe that another process settles; it ends us if it cannot."""
    while (recipe := begun(folder, sources)) is None:
        time.sleep(0.1)
    return recipe
