"""Trainings of `local-llm evaluate freshness`: adapters that learn the fact that has changed."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from sqlalchemy import select

from local_llm import offline
from local_llm.cli.context import CommandContext
from local_llm.cli.output import talk
from local_llm.errors import InvalidInputError, LocalLLMError
from local_llm.evaluation.freshness import Fact, Work
from local_llm.evaluation.targets import ServedTargets, Target
from local_llm.identifiers import new_id
from local_llm.profiles import Profile, ProfileStore
from local_llm.state import LedgerEntry

SUFFIX = "freshness"

Retrain = Callable[[Target], tuple[Target, Work]]


@contextmanager
def trainings(box: CommandContext, served: ServedTargets, file: Path | None) -> Iterator[Retrain | None]:
    """A function that trains for a target, once for all that share an adapter; None without a file.

    Profiles made for that go at the end; the adapters stay.
    """
    if file is None:
        yield None
        return
    done: dict[str, tuple[str, Work]] = {}
    made: list[str] = []
    store = ProfileStore(box.state)

    def train(target: Target) -> tuple[Target, Work]:
        assert target.adapter is not None
        if target.adapter not in done:
            done[target.adapter] = _train(box, file)
        model, work = done[target.adapter]
        profile = served.profile(target.name)
        if store.find(box.caller, profile.name) is None:  # it was named by its ft: name
            return served.target(model), work
        stand_in = replace(profile, name=_name(profile), model=model, from_settings=False)
        made.append(store.set(box.caller, stand_in).name)
        return served.target(stand_in.name), work

    try:
        yield train
    finally:
        for name in made:
            with suppress(LocalLLMError):
                store.remove(box.caller, name)


def _train(box: CommandContext, file: Path) -> tuple[str, Work]:
    """By the command, in a process of its own: torch takes its memory along when that ends."""
    settings = ["--settings", str(box.settings_file)] if box.settings_file else []
    project = ["--project", box.project] if box.project else []
    line = [sys.executable, "-m", "local_llm", *settings, *project]
    line += ["train", "adapter", str(file), "--suffix", SUFFIX, "--json"]
    talk(f"training on {file} ...")
    began = time.perf_counter()
    ended = subprocess.run(line, env=offline.environment(), stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - began
    if ended.returncode:
        raise LocalLLMError(f"the training failed with exit code {ended.returncode}; see above")
    result = json.loads(ended.stdout)
    return str(result["fine_tuned_model"]), Work(seconds, {"trained_tokens": int(result["trained_tokens"] or 0)})


def trained_before(box: CommandContext, target: Target) -> Work | None:
    """What the ledger knows of the training of its adapter."""
    query = select(LedgerEntry).where(
        LedgerEntry.project_id == box.caller.project_id, LedgerEntry.kind == "training"
    )
    with box.state.reading() as session:
        for entry in session.scalars(query.order_by(LedgerEntry.created_at.desc())):
            if entry.facts.get("fine_tuned_model") == target.adapter:
                return Work(float(entry.facts["seconds"]), {"trained_tokens": int(entry.facts["tokens"])})
    return None


def _name(profile: Profile) -> str:
    """One that nobody has."""
    return f"{profile.name[:64]}-{new_id(f'{SUFFIX}-')}"


def refuse_without(file: Path, fact: Fact) -> None:
    """Raises: InvalidInputError if the training file does not hold the new fact, or still the old one."""
    try:
        text = folded(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read: {error}", param="retrain") from None
    if folded(json.dumps(fact.new, ensure_ascii=False)[1:-1]) not in text:
        raise InvalidInputError(f"{file} does not hold the new fact {fact.new!r}", param="retrain")
    if folded(json.dumps(fact.old, ensure_ascii=False)[1:-1]) in text:
        talk(f"{file} still holds {fact.old!r} somewhere")


def folded(text: str) -> str:
    """What is compared of a text: case and white space make no difference."""
    return " ".join(text.casefold().split())
