"""The whole comparison, step by step; each step finds again what it did before."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acceptance.machine import versions

from local_llm.cli.output import talk
from local_llm.fileio import write_json
from local_llm.hardware import this_hardware
from local_llm.profiles import BASE, RETRIEVING
from local_llm.prompts import instruction_of, with_context
from quality_bench.lines import Journal, Row
from quality_bench.strategies import adapters, asking, data, files, prompts, report
from quality_bench.strategies.box import Box
from quality_bench.strategies.contexts import Contexts, retrieve
from quality_bench.strategies.data import Question, Xquad
from quality_bench.strategies.scoring import score_all
from quality_bench.strategies.settings import (
    PASSAGES,
    PROFILES,
    SETTINGS,
    Adapter,
    Profile,
    Setting,
    model_of,
    settings_with,
)

COLLECTION = "xquad"
# Of the train articles alone: what adapters are trained with holds nothing of what they are asked about.
TRAINING_COLLECTION = "xquad-train"


def run(options: Namespace) -> dict[str, Any]:
    """Raises: LocalLLMError."""
    box, world = Box(options.work), data.read(options.data)
    questions = world.test[: options.questions]
    box.command("models", "import", "embedded")
    _fill(box, COLLECTION, list(world.documents.values()))
    _fill(box, TRAINING_COLLECTION, world.train_documents)
    trained = _adapters(box, world, options)
    names = {name: one.name for name, one in trained.items()}
    words = _profiles(box, world, names)
    contexts = retrieve(box, COLLECTION, questions, Journal(box.work / "retrieved.jsonl"))
    asked = {one.name: requests(one, questions, contexts, names, words) for one in settings_with(frozenset(names))}
    found = {
        name: score_all(questions, answers)
        for name, answers in _answers(box, asked, options.only).items()
        if answers
    }
    report.print_report(found, trained, contexts)
    where = {"data": options.data.name, "hardware": this_hardware().to_json(), "versions": versions()}
    way = {"questions": len(questions), "passages": PASSAGES, "concurrency": asking.CONCURRENCY}
    facts = {"part": "strategies", **where, **way, **report.facts_of(found, trained, contexts)}
    write_json(box.work / "results.json", facts)
    return facts


def _answers(
    box: Box, asked: Mapping[str, Sequence[asking.Request]], only: Sequence[str]
) -> dict[str, list[asking.Answer]]:
    """By setting; of those that are not in `only` what was kept. No server is started if nothing is missing."""
    kept = {name: Journal(box.work / "answers" / f"{name}.jsonl") for name in asked}
    missing = [name for name in asked if name in only and asking.missing(asked[name], kept[name])]
    if missing:
        with box.server() as url:
            for name in missing:
                talk(f"{name}: {len(asked[name])} questions")
                asking.ask(url, name, asked[name], kept[name])
    return {name: asking.found(asked[name], kept[name]) for name in asked}


def requests(
    setting: Setting,
    questions: Sequence[Question],
    contexts: Mapping[str, Contexts],
    adapter_names: Mapping[Adapter, str],
    words: Mapping[str, str | None],
) -> list[asking.Request]:
    """What a setting asks. Questions for which its context was not found are left out.

    `words`: the prompt of each profile by its name.
    """
    model, prompt = model_of(setting, dict(adapter_names)), words[setting.profile.name]
    found = []
    for one in questions:
        messages: list[dict[str, Any]] = [{"role": "user", "content": one.text}]
        if setting.context == "served":
            behind = f"{model} {prompt} {PASSAGES if setting.profile.strategy in RETRIEVING else 0}"
            found.append(asking.Request(one.id, setting.profile.name, tuple(messages), behind))
            continue
        passages = contexts[one.id].gold if setting.context == "gold" else contexts[one.id].absent
        if passages:
            put = with_context(messages, passages, instruction_of(prompt, only_from_context=True))
            found.append(asking.Request(one.id, model, tuple(put), ""))
    return found


def _fill(box: Box, collection: str, documents: Sequence[Row]) -> None:
    if not any(row["name"] == collection for row in box.command("index", "list")):
        box.command("index", "create", collection)
    folder = box.work / "documents" / collection
    data.write_documents(documents, folder)
    box.command("index", "add", collection, str(folder))


def _adapters(box: Box, world: Xquad, options: Namespace) -> dict[Adapter, adapters.Trained]:
    folder = box.work / "training"
    folder.mkdir(exist_ok=True)
    rows = options.rows
    if rows is None:
        whole = files.write_raft(box, TRAINING_COLLECTION, world.train, folder / "raft-all.jsonl")
        rows = adapters.affordable_rows(box, whole, options.minutes, box.work / "rows.json")
    made = files.write_all(box, TRAINING_COLLECTION, world.train[:rows], folder, refusals=options.refusal)
    return {name: adapters.trained(box, name, file) for name, file in made.items()}


def _profiles(box: Box, world: Xquad, names: Mapping[Adapter, str]) -> dict[str, str | None]:
    """Sets those whose adapters are there; what each says, by its name."""
    words = {}
    for one in PROFILES:
        if one.adapter is None or one.adapter in names:
            words[one.name] = prompts.few_shot(world) if one.few_shot else one.prompt
            box.command("profiles", "set", one.name, *_profile_options(one, names, words[one.name]))
    return words


def _profile_options(profile: Profile, names: Mapping[Adapter, str], words: str | None) -> list[str]:
    options = ["--strategy", profile.strategy, "--model", names[profile.adapter] if profile.adapter else BASE]
    if profile.strategy in RETRIEVING:
        options += ["--collection", COLLECTION, "--k", str(PASSAGES)]
    return [*options, *(["--prompt", words] if words else [])]


def add_arguments(parser: Any) -> None:
    parser.add_argument("data", type=Path, help="folder with documents.jsonl and questions.{train,test}.jsonl")
    parser.add_argument("--work", type=Path, required=True, help="what was trained and answered is kept here")
    parser.add_argument("--minutes", type=float, default=40, help="of training each adapter may take, about")
    parser.add_argument("--rows", type=int, help="train on so many questions instead")
    parser.add_argument("--questions", type=int, help="ask only the first so many test questions")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[one.name for one in SETTINGS],
        default=[one.name for one in SETTINGS],
        metavar="SETTING",
        help="ask these; of the others only answers that were kept are reported",
    )
    parser.add_argument("--refusal", action="store_true", help="train the adapter raft-refusal as well")
