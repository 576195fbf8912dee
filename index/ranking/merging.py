"""Neighbouring passages of a document become one, and of equal passages one stays."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from index.interface import Hit


@dataclass
class Group:
    """Hits that follow each other in one version of a document. The best, first found, gives it its score."""

    hits: list[Hit]
    texts: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.texts = {_folded(hit) for hit in self.hits}

    @property
    def best(self) -> Hit:
        return self.hits[0]

    @property
    def first(self) -> Hit:
        return min(self.hits, key=lambda hit: hit.start)

    @property
    def end(self) -> int:
        return max(hit.end for hit in self.hits)

    def borders_on(self, other: "Group") -> bool:
        return any(_neighbours(one, two) for one in self.hits for two in other.hits)

    def take(self, other: "Group") -> None:
        self.hits += other.hits
        self.texts |= other.texts


def merge(hits: Sequence[Hit], k: int) -> list[Group]:
    """The k best groups, best first, of hits that are in order; fewer if the hits give no more.

    Hits are taken one by one until there are k: what comes later neither joins a group nor makes one longer.
    """
    groups: list[Group] = []
    for hit in hits:
        if len(groups := _with(groups, Group([hit]))) == k:
            break
    return groups


def _with(groups: list[Group], new: Group) -> list[Group]:
    """A passage between two groups joins them both: the better one goes on."""
    bordering = [group for group in groups if group.borders_on(new)]
    if not bordering:
        told = any(new.texts <= group.texts for group in groups)
        return groups if told else [*groups, new]
    kept, *others = bordering
    kept.take(new)
    for other in others:
        kept.take(other)
    # What is longer now may hold all that a group behind it tells.
    behind = groups.index(kept)
    return [
        group
        for at, group in enumerate(groups)
        if group not in others and not (at > behind and group.texts <= kept.texts)
    ]


def _neighbours(one: Hit, two: Hit) -> bool:
    """Whether nothing but white space lies between them: they overlap, or follow each other under one heading."""
    if (one.document_id, one.version) != (two.document_id, two.version):
        return False
    overlapping = one.start < two.end and two.start < one.end
    return overlapping or (abs(one.passage_id - two.passage_id) == 1 and one.heading == two.heading)


def _folded(hit: Hit) -> str:
    return " ".join(hit.text.split())
