"""Which window of which passage supports a sentence: a sentence of the passage, or two neighbours.

It is known beforehand which of them hold a word: a thousand sentences are compared with fifty passages in a moment.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from local_llm.answer_measures import containment
from serving.answering.words import content_words, numbers_and_names, without_item_mark

# A sentence is supported if this share of what it says stands in the window, and it says so many words.
MINIMUM_SHARE = 0.6
MINIMUM_WORDS = 3

# In a document a line's end is mostly a wrapped line; it ends a sentence before a blank line, and around the
# items of lists, the rows of tables and headings.
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)|\|\s*\n|\n(?=\s*(?:\n|[-*|#]|\d+[.)]\s))")
_ITEM = re.compile(r"[-*|]|\d+[.)]\s")


class Source(Protocol):
    """A retrieved passage. `start` and `end` are characters of the stored text of its document."""

    @property
    def title(self) -> str: ...
    @property
    def heading(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def start(self) -> int: ...


@dataclass(frozen=True)
class Support:
    """The passage (counting from 1) that supports a sentence, and the characters of the document that do."""

    number: int
    start: int
    end: int


@dataclass(frozen=True)
class _Window:
    support: Support
    words: frozenset[str]


class Sources:
    """Passages that may support what an answer says. All choices of an answer share them."""

    def __init__(self, sources: Sequence[Source]):
        self._sources = sources
        # Of the title and the headings above: those tell what is spoken of.
        self._subjects = [frozenset(content_words(f"{source.title} {source.heading}")) for source in sources]
        self._windows = [window for number, source in enumerate(sources, 1) for window in _windows(number, source)]
        self._holding: dict[str, list[int]] = {}
        for at, window in enumerate(self._windows):
            for word in window.words - self._subjects[window.support.number - 1]:
                self._holding.setdefault(word, []).append(at)

    def supporting(self, sentence: str, left_out: Collection[int]) -> Support | None:
        """Where the most of what a sentence says stands, if that is enough; not in those left out."""
        words = content_words(sentence)
        return self._support(words, numbers_and_names(sentence) & words, left_out)

    def claimed(self, sentence: str, number: int) -> Support | None:
        """Where a passage that was named as its source supports a sentence, or holds it word by word: so a short
        answer, which says too little to be compared, has a source too."""
        if not 1 <= number <= len(self._sources):
            return None
        others = {other for other in range(1, len(self._sources) + 1) if other != number}
        return self.supporting(sentence, others) or self._holding_all(sentence, number)

    def _holding_all(self, sentence: str, number: int) -> Support | None:
        if not content_words(sentence):
            return None
        source, said = self._sources[number - 1], without_item_mark(sentence)
        for span in (window.support for window in self._windows if window.support.number == number):
            if containment(source.text[span.start - source.start : span.end - source.start], said):
                return span
        return None

    def _support(self, words: set[str], exact: set[str], left_out: Collection[int]) -> Support | None:
        if len(words) < MINIMUM_WORDS or not self._subjects:
            return None
        said = [len(words - subject) for subject in self._subjects]
        shared: Counter[int] = Counter()
        for word in words:
            shared.update(self._holding.get(word, ()))
        best: Support | None = None
        best_share = 0.0
        least = MINIMUM_SHARE * min(said) - 1e-9  # most windows hold a word or two: they are passed over at once
        for at in sorted(at for at, count in shared.items() if count >= least):
            window = self._windows[at]
            number = window.support.number
            if number in left_out or said[number - 1] < MINIMUM_WORDS:
                continue
            share = shared[at] / said[number - 1]
            if share >= MINIMUM_SHARE and share > best_share and exact <= window.words | self._subjects[number - 1]:
                best, best_share = window.support, share
        return best


def _windows(number: int, source: Source) -> list[_Window]:
    """Each sentence of a passage, and each pair of neighbours in prose: answers often join two.

    Rows of tables and items of lists are not joined: each speaks of another thing.
    """
    spans = sentence_spans(source.text)
    words = [frozenset(content_words(source.text[start:end])) for start, end in spans]
    prose = [not _ITEM.match(source.text, start) for start, _ in spans]
    pairs = [at for at in range(len(spans) - 1) if prose[at] and prose[at + 1]]
    windows = [(start, end, said) for (start, end), said in zip(spans, words, strict=True)]
    windows += [(spans[at][0], spans[at + 1][1], words[at] | words[at + 1]) for at in pairs]
    return [
        _Window(Support(number, source.start + start, source.start + end), said) for start, end, said in windows
    ]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    spans, start = [], 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]:
        piece = text[start:end]
        stripped = piece.strip()
        if stripped:
            offset = start + piece.index(stripped)
            spans.append((offset, offset + len(stripped)))
        start = end
    return spans
