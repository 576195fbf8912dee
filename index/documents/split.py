"""A parsed document into passages, sized in the encoder's own tokens, with exact offsets.

The document is tokenized once; sections (index/documents/sections.py) are then cut at the best places
(index/documents/boundaries.py) by bisection.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property

from index.documents.boundaries import beginning, cut, overlap_start, skip_blank
from index.documents.document import ParsedDocument
from index.documents.sections import Section, sections_of, tables_apart
from index.documents.tokens import MOST_CHARACTERS_PER_TOKEN, PLAIN_BLANKS, MeasuredText, TokenEnds, is_additive
from local_llm.errors import InvalidInputError, SettingsError

PATH_SEPARATOR = " > "
# Between title, headings, table header and text of what is encoded: white space, which word-piece encoders drop.
CONTEXT_SEPARATOR = "\n"
# Title and headings may take this share of a passage at most, a table's header as much; what is longer loses
# its end.
CONTEXT_SHARE = 4
LEAST_CHUNK_TOKENS = 16


@dataclass(frozen=True)
class Passage:
    """Characters [start, end) of the document's text.

    `encoded` is `context` and then those characters. `context` is made by `Splitter.context` from the document's
    title, `heading`, the path of headings, and `table_header`: the first row of the table that the passage goes
    on with, else "".
    """

    start: int
    end: int
    page: int | None
    heading: str
    encoded: str
    tokens: int
    context: str = ""
    table_header: str = ""


@dataclass(frozen=True)
class Sizes:
    """`chunk_tokens` bounds the encoded text, context included; neighbours share `overlap_tokens` at most."""

    chunk_tokens: int
    overlap_tokens: int

    def problem(self, max_tokens: int) -> str | None:
        """What is wrong with them for an encoder that reads `max_tokens`."""
        if self.chunk_tokens > max_tokens:
            return f"chunk_tokens = {self.chunk_tokens}, but the encoder reads {max_tokens} tokens"
        if self.chunk_tokens < LEAST_CHUNK_TOKENS:
            return f"chunk_tokens = {self.chunk_tokens}, expected {LEAST_CHUNK_TOKENS} or more"
        if not 0 <= self.overlap_tokens <= self.chunk_tokens // 2:
            return (
                f"overlap_tokens = {self.overlap_tokens}, "
                f"expected 0 to {self.chunk_tokens // 2}: half of chunk_tokens = {self.chunk_tokens}"
            )
        return None


class Splitter:
    """Cuts documents for one encoder. Making one costs nothing.

    `max_tokens` is what the encoder reads, special tokens not counted.

    Raises: SettingsError if the sizes do not go together.
    """

    def __init__(self, token_ends: TokenEnds, *, chunk_tokens: int, overlap_tokens: int, max_tokens: int):
        self._token_ends = token_ends
        self._sizes = Sizes(chunk_tokens, overlap_tokens)
        self._max_tokens = max_tokens
        if problem := self._sizes.problem(max_tokens):
            raise SettingsError(
                f"index.{problem}",
                hint=f"set index.chunk_tokens to {max_tokens} or less, index.overlap_tokens to half of it or less",
            )

    @property
    def sizes(self) -> dict[str, int]:
        """What passages depend on beside the document: equal sizes split it alike."""
        return asdict(self._sizes)

    def split(
        self, document: ParsedDocument, *, chunk_tokens: int | None = None, overlap_tokens: int | None = None
    ) -> list[Passage]:
        """The document's passages in order. Every word of it is in one of them or in a heading path.

        Sizes given here hold for this document.

        Raises: InvalidInputError if they do not go together.
        """
        sizes = self._sizes_with(chunk_tokens, overlap_tokens)
        work = _Splitting(self, document, MeasuredText(document.text, self._token_ends), sizes)
        return [passage for section in sections_of(document) for passage in work.passages(section)]

    def encoded(self, title: str, heading_path: str, context_extra: str, text: str) -> str:
        """What to encode for a passage, from what is stored of it: `Passage.heading`, `Passage.table_header`.

        With the sizes and the encoder that it was split for, this is `Passage.encoded`.
        """
        return self.context(title, heading_path, context_extra) + text

    def context(
        self, title: str, heading_path: str, table_header: str = "", *, chunk_tokens: int | None = None
    ) -> str:
        """The lines before a passage's text: title and headings, each once, and a table's header."""
        share = (chunk_tokens or self._sizes.chunk_tokens) // CONTEXT_SHARE
        names = dict.fromkeys((title, *heading_path.split(PATH_SEPARATOR)))
        path = PATH_SEPARATOR.join(name for name in names if name)
        return self._line(path, share) + self._line(table_header, share)

    def count(self, text: str) -> int:
        return len(self._token_ends(text))

    @cached_property
    def additive(self) -> bool:
        """Whether tokens may be counted piece by piece, if the pieces lie between blanks."""
        return is_additive(self._token_ends)

    def _line(self, text: str, most_tokens: int) -> str:
        ends = self._token_ends(text[: most_tokens * MOST_CHARACTERS_PER_TOKEN])[:most_tokens]
        return text[: ends[-1]] + CONTEXT_SEPARATOR if ends else ""

    def _sizes_with(self, chunk_tokens: int | None, overlap_tokens: int | None) -> Sizes:
        sizes = Sizes(
            self._sizes.chunk_tokens if chunk_tokens is None else chunk_tokens,
            self._sizes.overlap_tokens if overlap_tokens is None else overlap_tokens,
        )
        if problem := sizes.problem(self._max_tokens):
            raise InvalidInputError(problem, param="chunking_strategy")
        return sizes


@dataclass(frozen=True)
class _Splitting:
    """One document being split."""

    splitter: Splitter
    document: ParsedDocument
    measured: MeasuredText
    sizes: Sizes
    contexts: dict[tuple[str, str], "_Context"] = field(default_factory=dict)

    def passages(self, section: Section) -> Iterator[Passage]:
        room = self._room(self._context(section, ""))
        for part in tables_apart(self.measured, section, room):
            yield from self._cut(part)

    def _cut(self, section: Section) -> Iterator[Passage]:
        """The section's passages, each begun earlier by the last sentences of the one before."""
        text, stop = self.measured.text, section.start + len(self._slice(section.start, section.end).rstrip())
        start = fresh = beginning(text, section.grain, section.start, stop)
        context, header = self._context(section, ""), ""
        while fresh < stop:
            passage, end = self._passage(section, context, header, (start, stop), fresh)
            yield passage
            if section.table_header and not header:  # the first passage begins with it
                header = section.table_header
                context = self._context(section, header)
            fresh = beginning(text, section.grain, end, stop)
            span, most = (passage.start, passage.end), self.sizes.overlap_tokens
            shared = overlap_start(self.measured, section.grain, span, most)
            start = fresh if shared is None else shared

    def _passage(
        self, section: Section, context: "_Context", header: str, span: tuple[int, int], fresh: int
    ) -> tuple[Passage, int]:
        """The passage that begins at span[0], and where the next has to go on."""
        start, room = span[0], self._room(context)
        while True:
            end = cut(self.measured, section.grain, (start, span[1]), fresh, room)
            text = self._slice(start, end).rstrip()
            tokens = self._tokens(context, start, start + len(text))
            if tokens <= self.sizes.chunk_tokens or room == 1:
                break
            # Cut from its neighbours the text has more tokens than it had among them.
            start, room = fresh, max(1, min(room - 1, room - (tokens - self.sizes.chunk_tokens)))
        heading = PATH_SEPARATOR.join(section.path)
        page = self._page(skip_blank(self.measured.text, start, end))
        passage = Passage(
            start, start + len(text), page, heading, context.text + text, tokens, context.text, header
        )
        return passage, end

    def _tokens(self, context: "_Context", start: int, end: int) -> int:
        """Tokens of what is encoded, exactly."""
        if self.splitter.additive and self._between_blanks(start, end):
            return context.tokens + self.measured.tokens(start, end)
        return self.splitter.count(context.text + self._slice(start, end))

    def _between_blanks(self, start: int, end: int) -> bool:
        text = self.measured.text
        return (start == 0 or text[start - 1] in PLAIN_BLANKS) and (end == len(text) or text[end] in PLAIN_BLANKS)

    def _room(self, context: "_Context") -> int:
        return max(1, self.sizes.chunk_tokens - context.size)

    def _context(self, section: Section, header: str) -> "_Context":
        heading = PATH_SEPARATOR.join(section.path)
        if (heading, header) not in self.contexts:
            text = self.splitter.context(self.document.title, heading, header, chunk_tokens=self.sizes.chunk_tokens)
            self.contexts[heading, header] = _Context(text, self.splitter.count(text))
        return self.contexts[heading, header]

    def _page(self, start: int) -> int | None:
        """The page on which a passage begins."""
        pages = self.document.pages
        return pages[bisect_right(pages, start, key=lambda page: page.start) - 1].number if pages else None

    def _slice(self, start: int, end: int) -> str:
        return self.measured.text[start:end]


@dataclass(frozen=True)
class _Context:
    text: str
    tokens: int

    @property
    def size(self) -> int:
        return max(self.tokens, -(-len(self.text) // MOST_CHARACTERS_PER_TOKEN))
