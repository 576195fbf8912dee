"""Everything that this product measures and answers, on a world of yours to look at: the pages of docs/ quote it.

    python scripts/worked_example.py quillon --work FOLDER
    python scripts/worked_example.py xquad DATA/xquad --work FOLDER

`quillon`: the sample world, from an empty FOLDER: quickstart, then all that follows.
`xquad`: FOLDER is what `bench_quality.py strategies DATA/xquad --work FOLDER` left: its adapters and profiles are
evaluated by the product's own command.

Then, on the running server: `evaluate` (four strategies), `evaluate freshness` (a changed fact, with a retraining),
`cost measure` (the saturated engine, base and adapter); and without it: `cost compare`, `cost breakeven`, `decide`.
What each printed lies in FOLDER/printed, plots and the report beside it. What was done is done again, but for
answers that are kept; nothing else should run on the machine, or the figures are of that, too.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quality_bench.lines import Row, read_rows, write_rows
from quality_bench.strategies import data
from quality_bench.strategies.box import Box

from local_llm import offline
from local_llm.cli.output import talk
from local_llm.errors import LocalLLMError

SCRIPTS = Path(__file__).parent
WORLD = SCRIPTS.parent / "examples" / "quillon"
# A small model repeats itself until it is stopped; a processor writes slowly.
MAX_TOKENS = "80"
# The sample model reads 2,048 tokens; about eight runs of twenty seconds each.
LOAD = ("--seconds", "20", "--concurrency", "16", "--prompt-words", "256", "--answer-tokens", "64")
HOSTED = ("--hosted", "gpt-4o-mini", "--hosted", "gpt-6-luna")
QUERIES_PER_MONTH = "100000"
# No run of an hour tells how often documents change or who must see sources, and no processor how quick a GPU is.
TOLD = ("--changes", "--citations", "--both-affordable", "--no-low-latency")


@dataclass(frozen=True)
class World:
    """`profiles` of the four strategies, base first; `fact`: arguments of `evaluate freshness`."""

    questions: Path
    collection: str
    profiles: tuple[str, str, str, str]
    adapter: str
    fact: Sequence[str] = field(default_factory=tuple)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True, dest="world")
    for name in ("quillon", "xquad"):
        part = parts.add_parser(name)
        part.add_argument("--work", type=Path, required=True)
        if name == "xquad":
            part.add_argument(
                "data", type=Path, help="folder with documents.jsonl and questions.{train,test}.jsonl"
            )
            part.add_argument("--questions", type=int, default=60, help="ask the first so many test questions")
    options = parser.parse_args()
    offline.apply()
    try:
        if options.world == "quillon":
            box = Box(options.work, settings="")
            world = quillon(box)
        else:
            box = Box(options.work)
            world = xquad(box, options.data, options.questions)
        show(box, world)
    except LocalLLMError as error:
        talk(f"error: {error.message}" + (f"\n  try: {error.hint}" if error.hint else ""))
        return 1
    return 0


def quillon(box: Box) -> World:
    told = json.loads(box.printed(str(SCRIPTS / "quickstart.py")).splitlines()[-1])
    changed = box.work / "training-with-the-changed-fact.jsonl"
    write_rows(changed, [*read_rows(WORLD / "training.jsonl"), *read_rows(WORLD / "changed-fact.jsonl")])
    fact = (
        str(WORLD / "documents" / "scanner-factory-reset.md"), "--collection", "quillon",
        "--question", "How long must I hold trigger and side key to factory reset a scanner?",
        "--old", "12 seconds", "--new", "18 seconds", "--retrain", str(changed),
    )  # fmt: skip
    profiles = ("quillon-base", "quillon-fine-tuned", "quillon-rag", "quillon-hybrid")
    return World(WORLD / "questions.jsonl", "quillon", profiles, told["fine_tuned_model"], fact)


def xquad(box: Box, folder: Path, count: int) -> World:
    """The questions as `evaluate` reads them, with the place of each answer as its evidence."""
    world = data.read(folder)
    questions = box.work / f"xquad-{count}.jsonl"
    write_rows(questions, [_question(one) for one in world.test[:count]])
    profiles = ("quality-base", "quality-fine-tuned", "quality-rag", "quality-hybrid")
    adapter = next(row["model"] for row in box.command("profiles", "list") if row["name"] == profiles[3])
    return World(questions, "xquad", profiles, adapter)


def _question(one: data.Question) -> Row:
    return {
        "id": one.id,
        "question": one.text,
        "answer": one.answer,
        "documents": [data.name_of(one.document)],
        "evidence": [{"document": data.name_of(one.document), "text": one.answer}],
        "tags": [one.article],
    }


def show(box: Box, world: World) -> None:
    """Raises: LocalLLMError."""
    folder = box.work / "printed"
    folder.mkdir(exist_ok=True)

    def step(name: str, *arguments: str) -> None:
        text = box.printed("-m", "local_llm", *arguments)
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        print(text)

    with box.server():
        step("measure-base", "cost", "measure", *LOAD)
        step("measure-adapter", "cost", "measure", "--model", world.adapter, *LOAD)
        names, out = ",".join(world.profiles), str(folder / "evaluation")
        step(
            "evaluate", "evaluate", str(world.questions), "--profiles", names, "--max-tokens", MAX_TOKENS,
            "--fresh", "--out", out,
        )  # fmt: skip
        if world.fact:
            step("freshness", "evaluate", "freshness", *world.fact, "--profiles", names, "--max-tokens", MAX_TOKENS)
    step("history", "evaluate", "history", str(world.questions), "--html", str(folder / "history.html"))
    month = ("--queries-per-month", QUERIES_PER_MONTH)
    step("compare", "cost", "compare", *month, "--updates-per-month", "4", *HOSTED, "--article")
    step("breakeven", "cost", "breakeven", *HOSTED, "--plot", str(folder / "breakeven.svg"))
    step("decide", "decide", *TOLD, "--collection", world.collection, "--plot", str(folder / "decision.svg"))


if __name__ == "__main__":
    sys.exit(main())
