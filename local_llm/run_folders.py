"""Folders that hold what runs made and that no row names: of retrievers that were trained, and of evaluations.

Each tells whose it is by itself, so that a project takes them along when it goes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local_llm.fileio import read_json
from local_llm.home import Home

REQUEST, RUN_LOCK, PUBLISHED = "request.json", "run.lock", "published.json"
# Of a retriever: the questions of its own that it was trained on, and not measured with.
TRAINED_ON = "trained-on.jsonl"
RETRIEVER, EVALUATION, ANSWERS = "retriever run", "evaluation", "kept answers"


@dataclass(frozen=True)
class RunFolder:
    """`project_id` None: it does not say whose it is, being damaged or in the making.

    `published`: of a retriever, whether its model is in the store; of the others, true.
    """

    kind: str
    path: Path
    project_id: str | None
    published: bool = True


def run_folders(place: Home) -> Iterator[RunFolder]:
    for path in _folders(place.retrievers):
        project = _project_of(path / REQUEST)
        yield RunFolder(RETRIEVER, path, project, published=(path / PUBLISHED).exists())
    for path in _folders(place.evaluations / "runs"):
        yield RunFolder(EVALUATION, path, _project_of(path / "report.json"))
    for path in _folders(place.evaluations / "answers"):
        yield RunFolder(ANSWERS, path, path.name)


def of_project(place: Home, project_id: str) -> list[RunFolder]:
    return [one for one in run_folders(place) if one.project_id == project_id]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _project_of(file: Path) -> str | None:
    try:
        project = read_json(file)["project"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return project if isinstance(project, str) else None
