"""Citations: which passage supports which sentence of an answer.

A sentence is supported by a passage when most of what it says stands in one window of the passage, and every
number and name in it does. What it says are its content words beyond the passage's title and headings: those tell
what is spoken of, and a sentence that only repeats them says nothing. The marker `[n]` is written after a supported
sentence, while the answer streams.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

# A sentence is supported if this share of what it says stands in the window, and it says so many words.
MINIMUM_SHARE = 0.6
MINIMUM_WORDS = 3

_WORD = re.compile(r"\w+(?:[.,:/-]\w+)*", re.UNICODE)
# In a document a line's end is mostly a wrapped line; it ends a sentence before a blank line, and around the
# items of lists, the rows of tables and headings.
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)|\|\s*\n|\n(?=\s*(?:\n|[-*|#]|\d+[.)]\s))")
_ITEM = re.compile(r"[-*|]|\d+[.)]\s")
# A word that begins no sentence and no part of one: with a capital it is a name.
_WITHIN = re.compile(r"(?<=\w[ ,])\s*([^\W\d_]\w*(?:[.,:/-]\w+)*)")
# Numbers are written either way. Not "one", which is mostly none.
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)  # noqa: SIM905
}
# The commonest words of English: they stand in every sentence and support none.
_STOPWORDS = frozenset(
    """
    a about after all also an and any are as at be been before but by can could do does for from had has have he
    her his how i if in into is it its may more most must my no not of on only or our out over shall she should
    so some such than that the their them then there these they this those to under up was we were what when
    where which while who will with would you your
    """.split()  # noqa: SIM905
)


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
class Mark:
    """A support, and where its marker stands in the answer."""

    support: Support
    answer_start: int
    answer_end: int


@dataclass(frozen=True)
class _Window:
    start: int
    end: int
    words: frozenset[str]
    subject: frozenset[str]  # of the title and the headings above

    def share_of(self, words: set[str], exact: set[str]) -> float:
        """How much of what a sentence of these words says stands here: 0 to 1; 0 unless all of `exact` does."""
        said = words - self.subject
        if len(said) < MINIMUM_WORDS or not exact <= self.words | self.subject:
            return 0.0
        return len(said & self.words) / len(said)


class CitationWriter:
    """Copies an answer through, piece by piece, writing markers after supported sentences.

    Nothing is held back: a sentence's end is known by the white space behind it, and the marker goes before
    that. With `write_markers` off the text passes unchanged and only `marks` is filled.

    Who has to look something up before a marker may go out goes through pieces(), support() and close() by itself.
    """

    def __init__(
        self, sources: Sequence[Source], *, write_markers: bool = True, left_out: Collection[int] = frozenset()
    ):
        """`left_out` sources (numbered from 1) support nothing."""
        self._windows = [[] if number in left_out else _windows(source) for number, source in enumerate(sources, 1)]
        self._write = write_markers
        self._sentence = ""
        self._length = 0  # of what was written so far
        self.marks: list[Mark] = []

    def feed(self, text: str) -> str:
        """The text to send on for a piece of the answer."""
        return "".join(self.finish() if piece is None else piece for piece in self.pieces(text))

    def finish(self) -> str:
        """What is still to be sent when the answer has ended."""
        return self.close(self.support())

    def pieces(self, text: str) -> Iterator[str | None]:
        """The text in pieces; None where a sentence has ended: close() it before asking for the next."""
        start = 0
        for at, character in enumerate(text):
            if character.isspace() and _finished(self._sentence, character):
                yield text[start:at]
                yield None
                start = at
            self._sentence += character
            self._length += 1
        yield text[start:]

    def support(self) -> Support | None:
        """Of the sentence that is being written."""
        return self._support(self._sentence)

    def leave_out(self, number: int) -> None:
        """From now on this source supports nothing."""
        self._windows[number - 1] = []

    def close(self, support: Support | None) -> str:
        """Ends the sentence. Returns: its marker, if anything supports it."""
        self._sentence = ""
        if support is None:
            return ""
        marker = f" [{support.number}]" if self._write else ""
        start = self._length
        self._length += len(marker)
        self.marks.append(Mark(support, start, self._length))
        return marker

    def _support(self, sentence: str) -> Support | None:
        words = content_words(sentence)
        exact = numbers_and_names(sentence) & words
        best: Support | None = None
        best_share = 0.0
        for number, windows in enumerate(self._windows, 1):
            for window in windows:
                share = window.share_of(words, exact)
                if share > best_share:
                    best, best_share = Support(number, window.start, window.end), share
        return best if best_share >= MINIMUM_SHARE else None


def content_words(text: str) -> set[str]:
    """Lower-cased words and numbers that carry meaning, folded ("plans": "plan", "seven": "7", "8,443": "8443").

    A list's own number ("2. ") is none of them.
    """
    body = re.sub(r"^\s*(?:\d+[.)]|[-*])\s+", "", text)
    words = (found.group().lower() for found in _WORD.finditer(body))
    return {_folded(word) for word in words if word not in _STOPWORDS}


def numbers_and_names(text: str) -> set[str]:
    """What a sentence may not say otherwise than its source does: its numbers, and its capitalised words but the
    first."""
    names = {_folded(word.lower()) for word in _WITHIN.findall(text) if word[0].isupper()}
    return names | {word for word in content_words(text) if any(character.isdigit() for character in word)}


def _folded(word: str) -> str:
    if word in _NUMBER_WORDS:
        return _NUMBER_WORDS[word]
    if word[0].isdigit():
        return word.replace(",", "")
    return word.removesuffix("s") if len(word) > 3 else word


def _finished(sentence: str, following: str) -> bool:
    stripped = sentence.rstrip("\"')]")
    return (
        bool(stripped) and (following == "\n" or stripped[-1] in ".!?") and not re.fullmatch(r"\s*\d+\.", sentence)
    )


def _windows(source: Source) -> list[_Window]:
    """Each sentence of a passage, and each pair of neighbours in prose: answers often join two.

    Rows of tables and items of lists are not joined: each speaks of another thing.
    """
    spans = sentence_spans(source.text)
    prose = [not _ITEM.match(source.text, start) for start, _ in spans]
    pairs = [(spans[at][0], spans[at + 1][1]) for at in range(len(spans) - 1) if prose[at] and prose[at + 1]]
    subject = frozenset(content_words(f"{source.title} {source.heading}"))
    windows = []
    for start, end in spans + pairs:
        words = frozenset(content_words(source.text[start:end]))
        windows.append(_Window(source.start + start, source.start + end, words, subject))
    return windows


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
