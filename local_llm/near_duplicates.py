"""Questions that are the same but for a word or its form: what is trained must not be asked in the test.

Two texts are near duplicates if their sets of three-word pieces (of words alone, where they are shorter) overlap by
a Jaccard similarity of at least 0.8. Source for shingles and the measure: Broder 1997, "On the resemblance and
containment of documents"; the threshold is the one that Lee et al. 2022 (arXiv:2107.06499) use for edit similarity.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

THRESHOLD = 0.8
SHINGLE_WORDS = 3

_WORD = re.compile(r"\w+")


class NearDuplicates:
    """Texts that are known; tells which of them a text resembles."""

    def __init__(self, texts: Iterable[str] = ()):
        self._sizes: list[int] = []
        self._holding: dict[str, list[int]] = defaultdict(list)
        for text in texts:
            self.add(text)

    def add(self, text: str) -> int:
        """Returns: the text's number, counted from 0."""
        number, pieces = len(self._sizes), shingles(text)
        self._sizes.append(len(pieces))
        for piece in pieces:
            self._holding[piece].append(number)
        return number

    def of(self, text: str) -> list[int]:
        """Numbers of the known texts that this one nearly equals, the likest first."""
        pieces = shingles(text)
        shared: Counter[int] = Counter()
        for piece in pieces:
            shared.update(self._holding.get(piece, ()))
        likeness = {number: count / (len(pieces) + self._sizes[number] - count) for number, count in shared.items()}
        near = [number for number, share in likeness.items() if share >= THRESHOLD]
        return sorted(near, key=lambda number: (-likeness[number], number))


def shingles(text: str) -> frozenset[str]:
    """Pieces of three neighbouring words, case and punctuation aside; of a shorter text its words."""
    words = _WORD.findall(text.casefold())
    if len(words) <= SHINGLE_WORDS:
        return frozenset(words)
    return frozenset(" ".join(words[at : at + SHINGLE_WORDS]) for at in range(len(words) - SHINGLE_WORDS + 1))


def grouped(texts: Sequence[str]) -> list[int]:
    """For each text the number of the first that it nearly equals, itself if none: near duplicates in one group."""
    known, leaders = NearDuplicates(), list[int]()
    for text in texts:
        near = known.of(text)
        leaders.append(leaders[near[0]] if near else len(leaders))
        known.add(text)
    return leaders
