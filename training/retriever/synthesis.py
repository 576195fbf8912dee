"""Questions written by a model, where people's are missing: kept only if the search finds their document again.

Round-trip filter: Alberti et al. 2019, "Synthetic QA corpora generation with roundtrip consistency".
"""

import json
import os
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from local_llm.fileio import write_file
from local_llm.json_lines import LineError, numbered_lines, parse_line
from local_llm.near_duplicates import NearDuplicates
from local_llm.questions import Question
from training.reporting import Report
from training.retriever.data import Passage

Ask = Callable[[str], str]
"""What a model answers to a prompt. Called from several threads at once."""
Search = Callable[[str, int], Sequence[str]]
"""The documents of the k nearest passages. Called from one thread."""

AT_ONCE = 8  # an engine answers about as many together as fast as one alone
FOUND_AMONG = 5
PER_PASSAGE = 2
SHORTEST_CHARACTERS, LONGEST_CHARACTERS = 15, 300
# A passage may be longer than a small model reads beside the prompt.
PASSAGE_CHARACTERS = 2000

# What speaks of the text itself is no question that somebody asks who has not seen it.
_OF_THE_TEXT = re.compile(r"\b(the|this|that|above) (text|passage|document|article|section|paragraph)\b", re.I)
_NUMBERING = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):]|question\s*\d*\s*:|q\s*\d*\s*:)\s*", re.I)


@dataclass(frozen=True)
class Synthesised:
    """`unusable` lines were no questions, `duplicates` nearly were known ones, `lost` ones did not find their
    document."""

    questions: tuple[Question, ...]
    asked: int
    unusable: int
    duplicates: int
    lost: int


def prompt_for(passage: Passage) -> str:
    return (
        f"Write {PER_PASSAGE} different questions that a person would type into a search box and that the text "
        "below answers. Name the thing that is asked about; do not speak of the text. One question a line, nothing "
        "else.\n\n"
        f"Text:\n{passage.text[:PASSAGE_CHARACTERS]}"
    )


def synthesise(
    passages: Sequence[Passage],
    count: int,
    *,
    ask: Ask,
    search: Search,
    journal: Path,
    known: Sequence[str] = (),
    seed: int = 7,
    report: Report | None = None,
) -> Synthesised:
    """Up to `count` questions, from as many passages as it takes, all documents in turn.

    What the model answers goes to `journal` at once: a run that is started again asks nothing twice. `known`:
    questions that are there already. Progress counts questions kept.
    """
    sieve = _Sieve(count, search, NearDuplicates(known))
    order = in_turn(passages, seed)
    with _Journal(journal) as answers, ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(order), AT_ONCE):
            block = order[start : start + AT_ONCE]
            new = {pool.submit(ask, prompt_for(one)): one for one in block if one.id not in answers}
            for done in as_completed(new):
                answers.add(new[done].id, done.result())
            for one in block:
                sieve.take(one, answers[one.id])
            if report is not None:
                report(len(sieve.kept), count, f"{min(start + AT_ONCE, len(order))} passages asked about")
            if sieve.full:
                break
    return sieve.result()


def in_turn(passages: Sequence[Passage], seed: int) -> list[Passage]:
    """One passage of each document, then a second of each, and so on; documents and passages by chance."""
    of_document: dict[str, list[Passage]] = defaultdict(list)
    for one in passages:
        of_document[one.document].append(one)
    draw = random.Random(seed)
    for found in of_document.values():
        draw.shuffle(found)
    documents = list(of_document)
    draw.shuffle(documents)
    deepest = max(map(len, of_document.values()), default=0)
    return [of_document[name][at] for at in range(deepest) for name in documents if at < len(of_document[name])]


def questions_in(answer: str) -> Iterator[str | None]:
    """Of each line of an answer the question; None for one that is none."""
    for line in answer.splitlines():
        text = " ".join(_NUMBERING.sub("", line).strip(" \"'`*").split())
        if not text:
            continue
        fits = SHORTEST_CHARACTERS <= len(text) <= LONGEST_CHARACTERS and text.endswith("?")
        yield text if fits and not _OF_THE_TEXT.search(text) else None


class _Sieve:
    def __init__(self, count: int, search: Search, known: NearDuplicates):
        self._count, self._search, self._known = count, search, known
        self.kept: list[Question] = []
        self._asked = self._unusable = self._duplicates = self._lost = 0

    @property
    def full(self) -> bool:
        return len(self.kept) >= self._count

    def take(self, passage: Passage, answer: str) -> None:
        self._asked += 1
        for text in list(questions_in(answer))[:PER_PASSAGE]:
            if self.full:
                return
            if text is None:
                self._unusable += 1
            elif self._known.of(text):
                self._duplicates += 1
            elif passage.document not in self._search(text, FOUND_AMONG):
                self._lost += 1
            else:
                self._known.add(text)
                self.kept.append(Question(text, frozenset([passage.document])))

    def result(self) -> Synthesised:
        return Synthesised(tuple(self.kept), self._asked, self._unusable, self._duplicates, self._lost)


class _Journal:
    """What was answered, by passage; durable line by line. A line that a kill cut off is asked for again."""

    def __init__(self, path: Path):
        self._path = path
        self._answers = dict(_read(path)) if path.exists() else {}

    def __enter__(self) -> "_Journal":
        whole = "".join(_line(*one) for one in self._answers.items())
        write_file(self._path, whole.encode("ascii"))  # without what was cut off
        self._handle = self._path.open("a", encoding="ascii")
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def __contains__(self, passage: str) -> bool:
        return passage in self._answers

    def __getitem__(self, passage: str) -> str:
        return self._answers[passage]

    def add(self, passage: str, answer: str) -> None:
        self._answers[passage] = answer
        self._handle.write(_line(passage, answer))
        self._handle.flush()
        os.fsync(self._handle.fileno())


def _line(passage: str, answer: str) -> str:
    return json.dumps({"passage": passage, "answer": answer}) + "\n"


def _read(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as handle:
        for _, line in numbered_lines(handle):
            try:
                row = parse_line(line)
            except LineError:
                return
            yield row["passage"], row["answer"]
