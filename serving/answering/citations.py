"""Citations: which passage supports which sentence of an answer.

A sentence is supported by a passage when most of what it says stands in one window of the passage, and every
number and name in it does. What it says are its content words beyond the passage's title and headings: those tell
what is spoken of, and a sentence that only repeats them says nothing. The marker `[n]` is written after a supported
sentence, while the answer streams.

A model may write markers itself. They are taken out of the text, and written again where the passage that they name
stands the same test: every marker that a client sees is a citation.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from serving.answering.claims import FENCE, claims_at, is_open
from serving.answering.sources import Source, Sources, Support

# Where a sentence may end, or a marker of the model's own begin.
_PLACE = re.compile(r"[\s\[]")
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

    A sentence's end is known by the white space behind it, and the marker goes before that. Held back is only what
    a marker of the model's own may begin with, white space and `[`, until the next piece tells. With
    `write_markers` off the text passes unchanged and only `marks` is filled.

    Who has to look something up before a marker may go out goes through pieces(), rest(), supports() and close() by
    itself.
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
        self._claims: list[int] = []  # passages that the sentence names as its sources
        self._held = ""
        self._in_code = False
        self._length = 0  # of what was written so far
        self.marks: list[Mark] = []

    def feed(self, text: str) -> str:
        """The text to send on for a piece of the answer."""
        return "".join(self.end_sentence() if piece is None else piece for piece in self.pieces(text))

    def finish(self) -> str:
        """What is still to be sent when the answer has ended."""
        rest = [self.end_sentence() if piece is None else piece for piece in self.rest()]
        return "".join(rest) + self.end_sentence()

    def end_sentence(self) -> str:
        return self.close(self.supports())

    def pieces(self, text: str) -> Iterator[str | None]:
        """The text in pieces; None where a sentence has ended: close() it before asking for the next."""
        if self._write:
            yield from self._pieces(self._held + text, is_last=False)
        else:
            yield text
            yield from (None for piece in self._pieces(self._held + text, is_last=False) if piece is None)

    def rest(self) -> Iterator[str | None]:
        """As pieces(), of what was held back, when the answer has ended."""
        rest = self._pieces(self._held, is_last=True)
        yield from rest if self._write else (None for piece in rest if piece is None)

    def supports(self) -> list[Support]:
        """Of the sentence that is being written: by each passage that it names as its source and that is one, else
        by the one that says the most of it."""
        sentence = "".join(self._sentence)
        claims = [number for number in dict.fromkeys(self._claims) if number not in self._left_out]
        named = [self._sources.claimed(sentence, number) for number in claims]
        supports = [support for support in named if support is not None]
        if not supports:
            found = self._sources.supporting(sentence, self._left_out)
            supports = [] if found is None else [found]
        return supports

    def leave_out(self, numbers: Collection[int]) -> None:
        """From now on these sources support nothing."""
        self._left_out.update(numbers)

    def close(self, supports: Sequence[Support]) -> str:
        """Ends the sentence. Returns: the markers of what supports it."""
        if "".join(self._sentence).lstrip().startswith(FENCE):
            self._in_code = not self._in_code
        self._sentence, self._last, self._claims = [], "", []
        return "".join(self._marked(support) for support in supports)

    def _marked(self, support: Support) -> str:
        marker = f" [{support.number}]" if self._write else ""
        start = self._length
        self._length += len(marker)
        self.marks.append(Mark(support, start, self._length))
        return marker

    def _pieces(self, text: str, *, is_last: bool) -> Iterator[str | None]:
        self._held = ""
        start = seen = 0
        for place in _PLACE.finditer(text):
            at = place.start()
            if at < seen:
                continue
            self._add(text[seen:at])
            seen = at
            if not self._in_code:
                if not is_last and is_open(text, at):
                    self._held = text[at:]
                    break
                claims = claims_at(text, at, after_stop=self._is_stopped())
                if claims is not None:
                    yield text[start:at]
                    start = seen = claims.end
                    self._claims += claims.numbers
                    self._length += 0 if self._write else claims.end - at
                    if claims.closes:
                        yield None
                    continue
            if text[at].isspace() and self._is_finished(text[at]):
                yield text[start:at]
                yield None
                start = at
        end = len(text) - len(self._held)
        self._add(text[seen:end])
        yield text[start:end]

    def _add(self, piece: str) -> None:
        if piece:
            self._sentence.append(piece)
            self._length += len(piece)
            self._last = piece.rstrip(_CLOSING)[-1:] or self._last

    def _is_finished(self, following: str) -> bool:
        """Whether the sentence has ended before this white space."""
        return self._is_stopped() or (following == "\n" and bool(self._last) and not self._is_numbered())

    def _is_stopped(self) -> bool:
        return bool(self._last) and self._last in ".!?" and not self._is_numbered()

    def _is_numbered(self) -> bool:
        """The number of a list's item ends no sentence."""
        return self._last == "." and _NUMBERED.fullmatch("".join(self._sentence)) is not None
