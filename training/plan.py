"""What a job trains: settled when it first begins, and held to when it goes on after a crash.

Settings may have changed between the two; a run that mixed two ranks or learning rates would be neither.
"""

import shutil
import time
from pathlib import Path

from local_llm.fileio import read_json, write_json
from training.recipe import Recipe

PLAN = "plan.json"


def settle(folder: Path, recipe: Recipe, *, data_sha256: str, base_sha256: str) -> Recipe:
    """The recipe to train with in the job's `folder`: the one begun with, if data and base are still the same.

    Otherwise the folder is emptied and `recipe` begun.
    """
    begun = _read(folder, data_sha256, base_sha256)
    if begun is not None:
        return begun
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sources = {"data_sha256": data_sha256, "base_sha256": base_sha256}
    write_json(folder / PLAN, {**sources, "recipe": recipe.to_json()})
    return recipe


def await_settled(folder: Path, *, data_sha256: str, base_sha256: str) -> Recipe:
    """The recipe that another process settles; it ends us if it cannot."""
    while (begun := _read(folder, data_sha256, base_sha256)) is None:
        time.sleep(0.1)
    return begun


def _read(folder: Path, data_sha256: str, base_sha256: str) -> Recipe | None:
    path = folder / PLAN
    if not path.exists():
        return None
    plan = read_json(path)
    same = plan["data_sha256"] == data_sha256 and plan["base_sha256"] == base_sha256
    return Recipe(**plan["recipe"]) if same else None
