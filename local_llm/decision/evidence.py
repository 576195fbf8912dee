"""What this box already knows about the questions: its uploads and its ledger, judged by stated thresholds.

Nothing is guessed: where there is too little to go by, the evidence says so, and what to run or set.
"""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import or_, select

from local_llm import ledger
from local_llm.decision.latencies import PERCENTILE_NEEDS, Latency, latencies_of
from local_llm.decision.questions import ENOUGH_EXAMPLES, OFTEN_DAYS, QUICK_MILLISECONDS, Question
from local_llm.errors import NotFoundError
from local_llm.files import FINE_TUNE, FileStore
from local_llm.ledger import LedgerKind
from local_llm.permissions import Caller
from local_llm.profiles import Strategy
from local_llm.settings import Settings
from local_llm.state import Collection, LedgerEntry, State

DAY_SECONDS = 24 * 3600
# Twice the threshold: within it a weekly change would have been seen.
WATCHED_DAYS = 2 * OFTEN_DAYS
# What was long ago says little of what happens now.
WINDOW_DAYS = 84


@dataclass(frozen=True)
class Evidence:
    """`answer` None: nothing here decides the question; `figure` then says why. `mend`: what to run or set so that
    it is decided, or decided otherwise.

    `measured` is in `unit`, as is the threshold. `entry`: the id of what it was read from.
    """

    question: Question
    answer: bool | None
    figure: str
    threshold: float
    unit: str
    measured: float | None = None
    entry: str | None = None
    hardware: str | None = None
    mend: str | None = None


@dataclass(frozen=True)
class Box:
    """Where evidence is looked for. `collection`: by name or id; None: the only one there is.

    `at`: the time of looking, in seconds since 1970. `gpu`: whether figures of GPUs speak of what will serve.
    """

    settings: Settings
    state: State
    caller: Caller
    collection: str | None
    at: float
    gpu: bool = True


def collect(box: Box) -> tuple[Evidence, ...]:
    """On examples, changes and latency, in this order. Raises: NotFoundError for an unknown collection."""
    return (examples_evidence(box), changes_evidence(box), latency_evidence(box))


def examples_evidence(box: Box) -> Evidence:
    """The largest training file there is, uploaded or trained on. Of several files a model learns from one."""
    found = [*_uploads(box), *_trained_on(box)]
    if not found:
        return Evidence(
            "examples",
            None,
            "no training file was uploaded and nothing was trained",
            ENOUGH_EXAMPLES,
            "examples",
            mend="--examples N, or train with local-llm train adapter FILE",
        )
    count, what, entry = max(found)
    figure = f"{count:,} examples in {what}, counted and not judged"
    enough = count >= ENOUGH_EXAMPLES
    return Evidence("examples", enough, figure, ENOUGH_EXAMPLES, "examples", measured=count, entry=entry)


def changes_evidence(box: Box) -> Evidence:
    """On how many days documents were added or replaced after the first, in the last twelve weeks."""
    collection, missing = _collection(box)
    if collection is None:
        return _unknown_changes(missing, "--changes or --no-changes, or --collection NAME")
    entries = [entry for entry in _ledger(box, "ingestion") if entry.facts.get("collection") == collection.id]
    filled = [entry for entry in entries if entry.facts.get("documents", 0) > 0]
    if not filled:
        return _unknown_changes(
            f"nothing was ever added to {collection.name}", f"local-llm index add {collection.name}"
        )
    newest, oldest = filled[0], filled[-1]
    watched = min((box.at - oldest.created_at) / DAY_SECONDS, WINDOW_DAYS)
    if watched < WATCHED_DAYS:
        return _unknown_changes(
            f"{collection.name} was first filled {_days(watched)} ago: how often it changes shows after "
            f"{WATCHED_DAYS} days",
            "--changes or --no-changes",
        )
    days = {
        entry.created_at // DAY_SECONDS for entry in filled if entry.created_at >= box.at - watched * DAY_SECONDS
    }
    changed = len(days - {oldest.created_at // DAY_SECONDS})
    return _changes(collection.name, changed, watched, newest.id)


def latency_evidence(box: Box) -> Evidence:
    """The p95 of answers with retrieval, by the newest evaluation on a GPU."""
    found = [one for one in _latencies(box) if one.strategy == "rag"]
    usable = [one for one in gpu_latencies(box) if one.strategy == "rag"]
    if usable:
        return _latency(usable[0])
    return Evidence(
        "low_latency",
        None,
        _no_latency(found, box.gpu),
        QUICK_MILLISECONDS,
        "milliseconds",
        mend="local-llm evaluate on the GPU that will serve, or --low-latency or --no-low-latency",
    )


def gpu_latencies(box: Box) -> list[Latency]:
    """Those that count: of each strategy the quickest profile of the newest evaluation on a GPU."""
    if not box.gpu:
        return []
    found: dict[Strategy, Latency] = {}
    for one in _latencies(box):
        before = found.get(one.strategy)
        if one.is_of_gpu and one.is_enough and (before is None or one.is_quicker_in_the_same_entry(before)):
            found[one.strategy] = one
    return list(found.values())


def _latencies(box: Box) -> list[Latency]:
    """The newest first, without those of other collections than the one that was named."""
    all_of_them = [one for entry in _ledger(box, "evaluation") for one in latencies_of(entry)]
    if box.collection is None:
        return all_of_them
    collection, _ = _collection(box)
    names = (None,) if collection is None else (None, collection.id, collection.name)
    return [one for one in all_of_them if one.collection in names]


def _latency(found: Latency) -> Evidence:
    slow = found.p95_milliseconds > QUICK_MILLISECONDS
    side = "over" if slow else "within"
    return Evidence(
        "low_latency",
        slow,
        f"{found}: {side} the {QUICK_MILLISECONDS:,} ms in which a tuned model alone answers",
        QUICK_MILLISECONDS,
        "milliseconds",
        measured=found.p95_milliseconds,
        entry=found.entry,
        hardware=found.hardware,
        mend="--no-low-latency, if nobody waits for these answers" if slow else None,
    )


def _no_latency(found: list[Latency], gpu: bool) -> str:
    if not found:
        return "no evaluation of rag yet"
    newest = found[0]
    if newest.is_of_gpu and not gpu:
        return f"{newest}: there will be no such GPU, so it decides nothing"
    if not newest.is_of_gpu:
        return f"{newest}: a processor's figure says nothing of a GPU, so it decides nothing"
    return f"{newest}: a p95 needs {PERCENTILE_NEEDS} questions, so it decides nothing"


def _changes(name: str, changed: int, watched: float, entry: str) -> Evidence:
    apart = watched / changed if changed else None
    figure = f"documents of {name} were added or replaced on {changed} of {watched:.0f} days"
    if apart is not None:
        figure += f", one in {apart:.1f} days"
    often = apart is not None and apart <= OFTEN_DAYS
    measured = None if apart is None else round(apart, 2)
    return Evidence("changes", often, figure, OFTEN_DAYS, "days between changes", measured=measured, entry=entry)


def _unknown_changes(figure: str, mend: str) -> Evidence:
    return Evidence("changes", None, figure, OFTEN_DAYS, "days between changes", mend=mend)


def collection_name(box: Box) -> str | None:
    """Of the collection that was named, or of the only one there is."""
    collection, _ = _collection(box)
    return None if collection is None else collection.name


def _collection(box: Box) -> tuple[Collection | None, str]:
    """The one that is meant, else why there is none. Raises: NotFoundError."""
    query = select(Collection).where(Collection.project_id == box.caller.project_id)
    if box.collection is not None:
        query = query.where(or_(Collection.id == box.collection, Collection.name == box.collection))
    with box.state.reading() as session:
        rows = list(session.scalars(query))
    if box.collection is not None and not rows:
        raise NotFoundError(f"no collection {box.collection!r}", hint="local-llm index list")
    if not rows:
        return None, "there is no collection yet"
    if len(rows) > 1 and box.collection is None:
        return None, f"there are {len(rows)} collections, and none was named"
    return rows[0], ""


def _uploads(box: Box) -> list[tuple[int, str, str]]:
    """Lines of training files: whoever uploaded them had every line checked."""
    store = FileStore(box.settings, box.state)
    rows = store.list(box.caller, purpose=FINE_TUNE)
    return [(_lines(store.path(row.id)), row.filename, row.id) for row in rows if store.path(row.id).exists()]


def _lines(path: Path) -> int:
    with path.open("rb") as handle:
        return sum(1 for line in handle if line.strip())


def _trained_on(box: Box) -> list[tuple[int, str, str]]:
    found = []
    for entry in _ledger(box, "training"):
        count, name = entry.facts.get("examples"), entry.facts.get("fine_tuned_model")
        if isinstance(count, int) and name is not None:  # other things are trained, too
            found.append((count, f"the training of {name}", entry.id))
    return found


def _ledger(box: Box, kind: LedgerKind) -> list[LedgerEntry]:
    return ledger.entries(box.state, box.caller.project_id, kind)


def _days(days: float) -> str:
    return "less than a day" if days < 1 else f"{days:.0f} days"
