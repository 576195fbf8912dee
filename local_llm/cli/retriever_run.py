"""What `local-llm train retriever` does: gathers the data of a run, and looks on while one process trains."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from local_llm import offline
from local_llm.cli.context import CommandContext
from local_llm.cli.output import progress_bar, talk
from local_llm.errors import LocalLLMError
from local_llm.models import ModelStore

if TYPE_CHECKING:
    from index.interface import Index
    from local_llm.cli.retriever import Request
    from local_llm.questions import Question, Questions
    from training.retriever.data import Passage
    from training.retriever.run import Outcome

POLL_SECONDS = 0.3
# A step of large batches on a slow processor, and its checkpoint.
SHUTDOWN_SECONDS = 120
CHILD, LOG, JOURNAL = "retriever", "log.txt", "journal.jsonl"
LONGEST_QUESTIONS_TOKENS = 120


def gather(box: CommandContext, folder: Path, request: "Request") -> None:
    """Writes the folder that is trained from, unless it is whole already.

    Raises: UnavailableError if a model is to write questions and no server runs.
    """
    from index.access import open_index
    from training.retriever import data
    from training.retriever.settings import from_json

    if data.is_whole(folder):
        return
    with open_index(box.settings, box.state) as index:
        info = index.get(box.caller, request.collection)
        encoder = ModelStore(box.settings.place.models).get(info.encoder, "encoder").path
        passages = _passages(index, box, request.collection)
        asked = _asked(index, box, folder, request)
        written = _written(index, box, folder, request, passages, asked) if request.synthesise else []
    data.write(folder, passages, asked, encoder, from_json(request.settings), synthesised=written)


def train(box: CommandContext, folder: Path) -> "Outcome":
    """In one process of its own, which ends with this one and leaves what a next attempt goes on from.

    Raises: LocalLLMError for whatever ended the training.
    """
    from local_llm.device import training_device, training_environment
    from local_llm.processes import end_leftovers, start_child, stop_child
    from training.retriever.child import failure_of
    from training.retriever.run import outcome_of

    options = ["--settings", str(box.settings_file)] if box.settings_file else []
    command = [sys.executable, "-m", "training", *options, "retriever", str(folder)]
    records = folder / "processes"
    end_leftovers(records)
    with (
        training_device(box.settings, folder.name, talk=talk) as descriptors,
        progress_bar("training the retriever") as report,
        (folder / LOG).open("ab") as log,
    ):
        child = start_child(
            CHILD,
            command,
            environment={
                **offline.environment(),
                **training_environment(box.settings),
                "LOCAL_LLM_HOME": str(box.settings.home),
            },
            log=log,
            records=records,
            pass_fds=descriptors,
        )
        try:
            while child.poll() is None:
                _look(folder, report)
                time.sleep(POLL_SECONDS)
        finally:
            stop_child(child, grace_seconds=SHUTDOWN_SECONDS)
            (records / f"{CHILD}.process.json").unlink(missing_ok=True)
    outcome = outcome_of(folder)
    if outcome is not None:
        return outcome
    raise failure_of(folder) or LocalLLMError(
        f"the training process ended with exit status {child.returncode}",
        hint=f"see {folder / LOG}; go on with: local-llm train retriever --resume {folder.name}",
    )


def _look(folder: Path, report: Callable[[int, int, str], None]) -> None:
    """Passes on what the process reported last."""
    from training.retriever.child import progress_of

    progress = progress_of(folder)
    if progress is not None:
        report(progress.done, progress.total, progress.note)


def _passages(index: "Index", box: CommandContext, collection: str) -> "list[Passage]":
    from training.retriever.data import Passage

    found: list[Passage] = []
    after, total = 0, index.stats(box.caller, collection).passages
    with progress_bar("reading passages") as report:
        while page := index.passages(box.caller, collection, after=after):
            found += [Passage(str(one.id), one.document_id, one.text) for one in page]
            after = page[-1].id
            report(len(found), max(total, len(found)))
    return found


def _asked(index: "Index", box: CommandContext, folder: Path, request: "Request") -> "list[Question]":
    from local_llm.cli.retriever import GIVEN
    from local_llm.questions import read_questions

    if not (folder / GIVEN).exists():
        return []
    read = read_questions(folder / GIVEN, index.documents(box.caller, request.collection))
    _tell_left_out(read)
    return list(read.asked)


def _written(
    index: "Index",
    box: CommandContext,
    folder: Path,
    request: "Request",
    passages: "list[Passage]",
    asked: "list[Question]",
) -> "list[Question]":
    """Questions of the served model."""
    from training.retriever.synthesis import synthesise

    def search(question: str, k: int) -> list[str]:
        return [hit.document_id for hit in index.search(box.caller, request.collection, question, k)]

    with progress_bar("writing questions") as report:
        made = synthesise(
            passages,
            request.synthesise,
            ask=_asking(box),
            search=search,
            journal=folder / JOURNAL,
            known=[one.text for one in asked],
            seed=request.settings["seed"],
            report=report,
        )
    talk(
        f"{len(made.questions)} questions written from {made.asked} passages; left out: {made.unusable} lines that "
        f"are no questions, {made.duplicates} that are there already, {made.lost} that do not find their document"
    )
    return list(made.questions)


def _asking(box: CommandContext) -> Callable[[str], str]:
    """Asks the served base model. Raises: UnavailableError, also before the first question."""
    from local_llm.cli.serving import server_client, told_by_server

    client = server_client(box.settings)
    with told_by_server():
        client.models.list()

    def ask(prompt: str) -> str:
        with told_by_server():
            answer = client.chat.completions.create(
                model="base",
                messages=[{"role": "user", "content": prompt}],
                max_tokens=LONGEST_QUESTIONS_TOKENS,
                temperature=0,
            )
        return answer.choices[0].message.content or ""

    return ask


def _tell_left_out(read: "Questions") -> None:
    for what, count in (
        ("questions asked twice", read.duplicates),
        ("questions left out, naming no document of the collection", read.without_document),
        ("documents named that the collection does not have", read.unknown),
    ):
        if count:
            talk(f"{what}: {count}")
