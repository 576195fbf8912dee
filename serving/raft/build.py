"""A whole training file out of questions with their documents: whole or not there."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from index.interface import Hit, Index, Report, silent
from local_llm.answer_measures import words
from local_llm.errors import InvalidInputError
from local_llm.fileio import staged_file
from local_llm.near_duplicates import NearDuplicates
from local_llm.permissions import Allow, Caller, shared
from local_llm.provenance import fingerprint, remember
from local_llm.questions import Question
from local_llm.state import State
from serving.raft.passages import Passages, find_passages
from serving.raft.rows import RaftSettings, Row, row_of
from training.examples.data import check_training_file


@dataclass
class RaftReport:
    """What became of the questions: `rows`, or left out for one of the reasons; and what is odd about rows."""

    rows: int = 0
    with_gold: int = 0
    cited: int = 0
    refusals: int = 0
    # Left out:
    without_answer: int = 0
    near_duplicates: int = 0  # of a question before, with the same answer
    without_passage: int = 0  # of their documents no passage is found, or none at all
    # Of the rows:
    fewer_passages: int = 0
    gold_without_answer: int = 0  # the gold passage does not hold the answer in its words
    restricted: int = 0  # tell of passages that not everyone in the project may see
    # Of the passages:
    near_equal_passages: int = 0  # passed over: another says the same in the same words

    @property
    def left_out(self) -> int:
        return self.without_answer + self.near_duplicates + self.without_passage


def build(
    index: Index,
    caller: Caller,
    collection: str,
    questions: Sequence[Question],
    out: Path,
    settings: RaftSettings,
    report: Report = silent,
    *,
    state: State | None = None,
) -> RaftReport:
    """Writes `out`, a row a question, in their order; the same bytes for the same collection and settings.

    `state` remembers which rows hold restricted passages, and for whom: whatever is trained from them, be they
    copied or mixed, is for those keys only. Progress counts questions.

    Raises: NotFoundError; InvalidInputError for settings that cannot be, if nothing is written, or for restricted
    passages without a `state`.
    """
    _refuse_impossible(settings)
    done = RaftReport()
    asked = _distinct(questions, done)
    with_gold = _drawn(len(asked), settings)
    allows = {one.id: one.allow for one in index.documents(caller, collection)}
    audiences: dict[str, Allow] = {}
    with staged_file(out) as file:
        for number, question in enumerate(asked):
            report(number, len(asked), "")
            row = _row(index, caller, collection, question, settings, with_gold=number in with_gold, done=done)
            if row is None:
                continue
            file.write(json.dumps(row.example, ensure_ascii=False).encode() + b"\n")
            allow = _audience(row.told_of, allows)
            audiences[fingerprint(row.prompt)] = allow
            done.restricted += allow is not None
        _refuse_nothing(done, len(questions))
        _remember(state, caller, audiences, done.restricted)  # before anybody can take the file
    check_training_file(out, method="supervised", minimum=1)
    return done


def _refuse_impossible(settings: RaftSettings) -> None:
    if settings.passages < 1:
        raise InvalidInputError(f"passages = {settings.passages}; expected 1 or more", param="passages")
    if not 0 <= settings.gold_share <= 1:
        raise InvalidInputError(f"gold_share = {settings.gold_share}; expected 0 to 1", param="gold_share")


def _distinct(questions: Sequence[Question], done: RaftReport) -> list[Question]:
    """Those with an answer, without what says nearly the same as one before."""
    known, kept = NearDuplicates(), list[Question]()
    for question in questions:
        if question.answer is None:
            done.without_answer += 1
        elif any(words(str(kept[near].answer)) == words(question.answer) for near in known.of(question.text)):
            done.near_duplicates += 1
        else:
            known.add(question.text)
            kept.append(question)
    return kept


def _drawn(count: int, settings: RaftSettings) -> frozenset[int]:
    """Which rows have the gold passage."""
    chosen = random.Random(settings.seed).sample(range(count), round(settings.gold_share * count))
    return frozenset(chosen)


def _row(
    index: Index,
    caller: Caller,
    collection: str,
    question: Question,
    settings: RaftSettings,
    *,
    with_gold: bool,
    done: RaftReport,
) -> Row | None:
    found = find_passages(index, caller, collection, question, settings.passages)
    row = None if found.gold is None else row_of(question, found, settings, with_gold=with_gold)
    if row is None:
        done.without_passage += 1
        return None
    _count(row, found, settings, done)
    return row


def _count(row: Row, found: Passages, settings: RaftSettings, done: RaftReport) -> None:
    done.rows += 1
    done.with_gold += row.has_gold
    done.cited += row.is_cited
    done.refusals += row.refuses
    done.fewer_passages += len(row.passages) < settings.passages
    done.gold_without_answer += row.has_gold and not found.holds_answer
    done.near_equal_passages += found.passed_over


def _audience(passages: Sequence[Hit], allows: Mapping[str, Allow]) -> Allow:
    """Of a document that was added meanwhile nobody said who may see it: then admins only."""
    return shared(*(allows.get(hit.document_id, ()) for hit in passages))


def _refuse_nothing(done: RaftReport, asked: int) -> None:
    if not done.rows:
        raise InvalidInputError(
            f"of {asked} questions {done.without_answer} have no `answer` and {done.without_passage} no passage in "
            "the collection; nothing was written",
            hint="a row needs `question`, `documents` and `answer`",
        )


def _remember(state: State | None, caller: Caller, audiences: dict[str, Allow], restricted: int) -> None:
    if state is not None:
        remember(state, caller.project_id, audiences)
    elif restricted:
        raise InvalidInputError(
            f"{restricted} rows hold passages that not everyone in the project may see, and nothing remembers "
            "that; nothing was written",
            hint="local-llm train dataset raft remembers them",
        )
