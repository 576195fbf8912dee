"""Citations: which passage supports which sentence of an answer.

A sentence is supported by a passage when most of what it says stands in one window of the passage, and every
number and name in it does. What it says are its content words beyond the passage's title and headings: those tell
what is spoken of, and a sentence that only repeats them says nothing. The marker `[n]` is written after a supported
sentence, while the answer streams.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from serving.answering.sources import Source, Sources, Support
from serving.answering.words import content_words, numbers_and_names

_BLANK = re.compile(r"\s")
_NUMBERED = re.compile(r"\s*\d+\.")
_CLOSING = "\"')]"


@dataclass(frozen=True)
class Mark:
    """A support, and where its marker stands in the answer."""

    support: Support
    answer_start: int
    answer_end: int


class CitationWriter:
    """Copies an answer through, piece by piece, writing markers after supported sentences.

    Nothing is held back: a sentence's end is known by the white space behind it, and the marker goes before
    that. With `write_markers` off the text passes unchanged and only `marks` is filled.

    Who has to look something up before a marker may go out goes through pieces(), support() and close() by itself.
    """

    def __init__(
        self,
        sources: Sources | Sequence[Source],
        *,
        write_markers: bool = True,
        left_out: Collection[int] = frozenset(),
    ):
        """`left_out` sources (numbered from 1) support nothing."""
        self._sources = sources if isinstance(sources, Sources) else Sources(sources)
        self._left_out = set(left_out)
        self._write = write_markers
        self._sentence: list[str] = []
        self._last = ""  # character of the sentence that closes nothing
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
        start = seen = 0
        for blank in _BLANK.finditer(text):
            at = blank.start()
            self._add(text[seen:at])
            seen = at
            if self._is_finished(text[at]):
                yield text[start:at]
                yield None
                start = at
        self._add(text[seen:])
        yield text[start:]

    def support(self) -> Support | None:
        """Of the sentence that is being written."""
        sentence = "".join(self._sentence)
        words = content_words(sentence)
        return self._sources.support(words, numbers_and_names(sentence) & words, self._left_out)

    def leave_out(self, number: int) -> None:
        """From now on this source supports nothing."""
        self._left_out.add(number)

    def close(self, support: Support | None) -> str:
        """Ends the sentence. Returns: its marker, if anything supports it."""
        self._sentence, self._last = [], ""
        if support is None:
            return ""
        marker = f" [{support.number}]" if self._write else ""
        start = self._length
        self._length += len(marker)
        self.marks.append(Mark(support, start, self._length))
        return marker

    def _add(self, piece: str) -> None:
        if piece:
            self._sentence.append(piece)
            self._length += len(piece)
            self._last = piece.rstrip(_CLOSING)[-1:] or self._last

    def _is_finished(self, following: str) -> bool:
        """Whether the sentence has ended before this white space. The number of a list's item ends none."""
        if not self._last or (following != "\n" and self._last not in ".!?"):
            return False
        return self._last != "." or not _NUMBERED.fullmatch("".join(self._sentence))
