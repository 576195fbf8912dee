"""Encoders trained by the product's own run from a data folder, each by another recipe in the same time."""

from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any, Literal

from local_llm.cli.output import progress_bar, talk
from local_llm.errors import InvalidInputError
from local_llm.fileio import read_json, write_json
from local_llm.questions import Question
from quality_bench.lines import read_rows
from quality_bench.retriever.data import passage_text

if TYPE_CHECKING:
    from training.reporting import Report
    from training.retriever.data import Passage
    from training.retriever.settings import RetrieverSettings

Preset = Literal["default", "article", "library"]
PRESETS: tuple[Preset, ...] = ("default", "article", "library")
# Ours is to train within a quarter of an hour on two cores, all of it.
SECONDS = 600.0
FACTS = "facts.json"
# What the untuned encoder makes of the same data does not depend on the recipe.
SHARED = ("passages.npy", "questions.npy", "phase-split.json", "phase-base.json")

Facts = dict[str, Any]


def trained(
    work: Path,
    preset: Preset,
    medquad: Path,
    encoder: Path,
    *,
    seconds: float | None,
    limit: int | None,
    changes: Facts,
) -> Path:
    """The folder of the trained encoder, trained now unless it was; what it took is in facts_of().

    `seconds` of training; by default SECONDS, and for the other recipes what ours took. `changes`: to ours.

    Raises: LocalLLMError.
    """
    from training.retriever import data

    folder = work / "training" / preset
    if not (folder / FACTS).exists():
        limit_seconds = seconds or (SECONDS if preset == "default" else _seconds_of_ours(work))
        settings = settings_of(preset, limit_seconds, **(changes if preset == "default" else {}))
        if not data.is_whole(folder):
            data.write(folder, passages(medquad, limit), questions(medquad, limit), encoder, settings)
        talk(f"{preset}: training for {limit_seconds:.0f} s")
        with progress_bar(preset) as bar:
            facts = _unjudged(folder, work / "shared", bar)
            if preset == "default":
                facts |= _judged(folder, bar)
        write_json(folder / FACTS, {**facts, "settings": settings.to_json()})
    return folder / "model"


def _judged(folder: Path, bar: "Report") -> Facts:
    """As the command does it, with its own measurement on questions that were kept from training."""
    from training.retriever.run import train_retriever

    outcome = train_retriever(folder, report=bar)
    talk(outcome.reason)
    return {"better_on_dev": outcome.better, "dev": outcome.facts["metrics"]["dev"]}


def _unjudged(folder: Path, shared: Path, bar: "Report") -> Facts:
    """Each recipe from the same split and the same vectors of the untuned encoder, which are made once."""
    from training.retriever.run import train_unjudged

    _copy_missing(shared, folder)
    facts = told(train_unjudged(folder, report=bar))
    shared.mkdir(exist_ok=True)
    _copy_missing(folder, shared)
    return facts


def _copy_missing(source: Path, target: Path) -> None:
    for name in SHARED:
        if (source / name).exists() and not (target / name).exists():
            copyfile(source / name, target / name)


def settings_of(preset: Preset, seconds: float, **changes: Any) -> "RetrieverSettings":
    """No test side: the test questions are apart from all this. No minimum of questions, for small trials."""
    from training.retriever.settings import RetrieverSettings, article, library_defaults

    made: dict[Preset, Callable[..., RetrieverSettings]] = {
        "default": RetrieverSettings,
        "article": article,
        "library": library_defaults,
    }
    return made[preset](max_seconds=seconds, test_share=0.0, force=True, **changes)


def facts_of(work: Path) -> dict[str, Facts]:
    """What training took, of each preset that was trained, by its name."""
    found = {preset: work / "training" / preset / FACTS for preset in PRESETS}
    return {preset: read_json(path) for preset, path in found.items() if path.exists()}


def told(made: Facts) -> Facts:
    """What is told of a training: its own facts without the losses."""
    names = ("pairs", "steps", "planned_steps", "seconds", "ended_early", "device", "precision", "chosen")
    return {
        **{name: made[name] for name in names},
        "first_loss": round(made["losses"][0], 4),
        "last_loss": round(made["losses"][-1], 4),
    }


def passages(medquad: Path, limit: int | None) -> list["Passage"]:
    """All documents, each one passage. `limit`: those of the first so many train questions, and as many others."""
    from training.retriever.data import Passage

    rows = read_rows(medquad / "documents.jsonl")
    if limit is not None:
        gold = frozenset[str]().union(*(one.documents for one in questions(medquad, limit)))
        rows = [row for row in rows if row["id"] in gold] + [row for row in rows if row["id"] not in gold][:limit]
    return [Passage(row["id"], row["id"], passage_text(row)) for row in rows]


def questions(medquad: Path, limit: int | None) -> list[Question]:
    rows = read_rows(medquad / "questions.train.jsonl")[:limit]
    return [Question(row["question"], frozenset(row["document_ids"])) for row in rows]


def _seconds_of_ours(work: Path) -> float:
    ours = facts_of(work).get("default")
    if ours is None:
        raise InvalidInputError(
            "how long ours trains here is not known", hint="run --preset default first, or give --seconds"
        )
    return float(ours["seconds"])
