"""Questions into train, dev and test, by document: what is trained shares no document with what is measured."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from local_llm.errors import InvalidInputError
from local_llm.near_duplicates import grouped
from local_llm.questions import Question
from training.retriever.data import folded


@dataclass(frozen=True)
class Split:
    """Numbers of questions. `groups`: of each question, the component it is of. `dropped`: written by a model about
    documents that people's questions are measured on, and so neither trained nor measured."""

    train: tuple[int, ...]
    dev: tuple[int, ...]
    test: tuple[int, ...]
    groups: tuple[int, ...]
    dropped: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def split_from_json(values: dict[str, Any]) -> Split:
    train, dev, test, groups = (tuple(values[name]) for name in ("train", "dev", "test", "groups"))
    return Split(train, dev, test, groups, values["dropped"])


def split(
    questions: Sequence[Question], *, synthesised: int, dev_share: float, test_share: float, seed: int
) -> Split:
    """Questions that share a document, or nearly are each other, stay together; a hash decides on the side.

    Where there are questions of people, nothing is measured on the `synthesised` ones at the end.

    Raises: InvalidInputError if a side that is needed stays empty.
    """
    groups = components(questions)
    sides: dict[str, list[int]] = {"train": [], "dev": [], "test": []}
    asked, dropped = len(questions) - synthesised, 0
    place = _places(questions, groups, seed)
    for number in range(len(questions)):
        side = _side(place[groups[number]], dev_share, test_share)
        if asked and number >= asked and side != "train":
            dropped += 1
        else:
            sides[side].append(number)
    for side in ("train", "dev"):
        if not sides[side]:
            raise InvalidInputError(
                f"the split leaves nothing for {side}: {len(questions)} questions are in {len(set(groups))} groups "
                "that share documents, and each goes to one side whole",
                hint="give questions about more documents, or another --seed",
            )
    return Split(tuple(sides["train"]), tuple(sides["dev"]), tuple(sides["test"]), tuple(groups), dropped)


def components(questions: Sequence[Question]) -> list[int]:
    """For each question the number of the first in its component."""
    leader = list(range(len(questions)))

    def find(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    def join(one: int, other: int) -> None:
        first, second = sorted((find(one), find(other)))
        leader[second] = first

    first_of: dict[str, int] = {}
    for number, question in enumerate(questions):
        for document in question.documents:
            join(number, first_of.setdefault(document, number))
    for number, near in enumerate(grouped([question.text for question in questions])):
        join(number, near)
    return [find(number) for number in range(len(questions))]


def _places(questions: Sequence[Question], groups: Sequence[int], seed: int) -> dict[int, float]:
    """Of each component a number in [0, 1) that depends on its questions and the seed only, not on the others."""
    texts: dict[int, list[str]] = defaultdict(list)
    for group, question in zip(groups, questions, strict=True):
        texts[group].append(folded(question.text))
    return {group: _uniform(f"{seed}\n{min(members)}") for group, members in texts.items()}


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8]) / 2**64


def _side(place: float, dev_share: float, test_share: float) -> str:
    if place < dev_share:
        return "dev"
    return "test" if place < dev_share + test_share else "train"
