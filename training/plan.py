"""What a job trains: settled when it first begins, and held to when it goes on after a crash.

Settings may have changed between the two; a run that mixed two ranks or learning rates would be neither.
"""

import shutil
from pathlib import Path

from local_llm.fileio import read_json, write_json
from training.recipe import Recipe

PLAN = "plan.json"


def settle(folder: Path, recipe: Recipe, *, data_sha256: str, base_sha256: str) -> Recipe:
    """The recipe to train with in the job's `folder`: the one begun with, if data and base are still the same.

    Otherwise the folder is emptied and `recipe` begun.
    """
    sources = {"data_sha256": data_sha256, "base_sha256": base_sha256}
    path = folder / PLAN
    if path.exists():
        plan = read_json(path)
        if all(plan[name] == value for name, value in sources.items()):
            return Recipe(**plan["recipe"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(path, {**sources, "recipe": recipe.to_json()})
    return recipe
