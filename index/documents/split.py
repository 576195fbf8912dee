"""A parsed document into passages: the home of LlamaIndex.

Its Markdown parser finds the sections and its sentence splitter cuts them to size, in the encoder's own
tokens. Both lose offsets (they search with str.find), so the text they return is aligned with the document
here, word by word: what a passage cites is literally there.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from index.documents.parse import WITH_HEADINGS, ParsedDocument
from local_llm.errors import IntegrityError, SettingsError

TokenEnds = Callable[[str], list[int]]
"""The encoder's tokenizer: for each token of a text, the character where it ends. No special tokens."""

PATH_SEPARATOR = " > "
# Between title, headings and text of what is encoded: white space, which word-piece encoders drop.
CONTEXT_SEPARATOR = "\n"
# Title and headings may take this share of a passage at most; a longer path loses its end.
CONTEXT_SHARE = 4

# A passage also has an end where tokens do not: word-piece tokenizers read a word of over 100 characters, as
# encoded files have, as one unknown token. Prose has 4 to 5 characters a token.
MOST_CHARACTERS_PER_TOKEN = 16

# LlamaIndex joins the path with a string of our choice: one that no heading holds.
_JOINT = "\x1f"
# After the end of a sentence, and after a line: list items and table rows stand for themselves.
# NLTK's sentences, LlamaIndex's own choice, need data files and know neither lists nor tables.
# The code points are the full stop, exclamation and question mark of Chinese and Japanese.
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|\n\s*|(?<=[\u3002\uff01\uff1f])")
_HEADING_LINE = re.compile(r"#+\s.*")

_Span = tuple[int, int]


@dataclass(frozen=True)
class Passage:
    """Characters [start, end) of the document's text. `encoded` is them with title and headings before."""

    start: int
    end: int
    page: int | None
    heading: str
    encoded: str
    tokens: int


class Splitter:
    """Cuts documents for one encoder.

    `chunk_tokens` bounds the encoded text, title and headings included; `max_tokens` is what the encoder
    reads, special tokens not counted.

    Raises: SettingsError if the sizes do not go together.
    """

    def __init__(self, token_ends: TokenEnds, *, chunk_tokens: int, overlap_tokens: int, max_tokens: int):
        if chunk_tokens > max_tokens:
            raise SettingsError(
                f"index.chunk_tokens = {chunk_tokens}, but the encoder reads {max_tokens} tokens",
                hint=f"set index.chunk_tokens to {max_tokens} or less",
            )
        if overlap_tokens > chunk_tokens // 2:
            raise SettingsError(
                f"index.overlap_tokens = {overlap_tokens} is more than half of index.chunk_tokens = {chunk_tokens}",
                hint=f"set index.overlap_tokens to {chunk_tokens // 2} or less",
            )
        self._token_ends = token_ends
        self._chunk_tokens = chunk_tokens
        self._overlap_tokens = overlap_tokens

    @property
    def sizes(self) -> dict[str, int]:
        """What passages depend on beside the document: equal sizes split it alike."""
        return {"chunk_tokens": self._chunk_tokens, "overlap_tokens": self._overlap_tokens}

    def split(self, document: ParsedDocument) -> list[Passage]:
        """The document's passages in order. Every word of it is in one of them or in a heading path."""
        return [passage for section in self._sections(document) for passage in self._passages(document, section)]

    def _sections(self, document: ParsedDocument) -> Iterator["_Section"]:
        if document.media_type in WITH_HEADINGS:
            yield from self._sections_by_headings(document.text)
        elif document.pages:
            for page in document.pages:
                yield _Section(page.start, page.end, (), page.number)
        else:
            yield _Section(0, len(document.text), (), None)

    def _sections_by_headings(self, text: str) -> Iterator["_Section"]:
        at = 0
        for node in self._markdown.get_nodes_from_node(_as_node(text)):
            above = tuple(part for part in node.metadata["header_path"].split(_JOINT) if part)
            first, _, rest = node.text.partition("\n")
            if _HEADING_LINE.match(first):
                _, at = _align(text, first, at)
                above, body = (*above, first.lstrip("#").strip()), rest
            else:
                body = node.text
            start, at = _align(text, body, at)
            yield _Section(start, at, above, None)

    def _passages(self, document: ParsedDocument, section: "_Section") -> Iterator[Passage]:
        text = document.text
        context = self._context(document.title, section.path)
        room = self._chunk_tokens - self._size(context)
        for start, end in self._overlapping(text, section, room):
            encoded = context + text[start:end]
            heading = PATH_SEPARATOR.join(section.path)
            yield Passage(start, end, section.page, heading, encoded, len(self._token_ends(encoded)))

    def _context(self, title: str, path: tuple[str, ...]) -> str:
        """Title and headings, each once, cut to their share of the passage."""
        whole = PATH_SEPARATOR.join(dict.fromkeys((title, *path)))
        share = self._chunk_tokens // CONTEXT_SHARE
        ends = self._token_ends(whole)[:share]
        return whole[: min(ends[-1], share * MOST_CHARACTERS_PER_TOKEN)] + CONTEXT_SEPARATOR if ends else ""

    def _overlapping(self, text: str, section: "_Section", room: int) -> Iterator[_Span]:
        """The section's pieces, each begun earlier by the last sentences of the piece before."""
        previous: _Span | None = None
        for start, end in self._pieces(text, section, room):
            yield (self._overlap_start(text, previous, start) if previous else start), end
            previous = start, end

    def _pieces(self, text: str, section: "_Section", room: int) -> Iterator[_Span]:
        """Spans that share nothing and leave out nothing but white space."""
        body = text[section.start : section.end]
        if self._size(body) <= room:
            pieces = [body]
        else:
            pieces = self._sentence_splitter(room - self._overlap_tokens).split_text(body)
        at = section.start
        for piece in pieces:
            if piece.strip():
                start, at = _align(text, piece, at)
                yield start, at

    def _overlap_start(self, text: str, previous: _Span, start: int) -> int:
        for sentence_start in _sentence_starts(text, *previous):
            if self._size(text[sentence_start : previous[1]]) <= self._overlap_tokens:
                return sentence_start
        return start

    def _size(self, text: str) -> int:
        """What a text takes of a passage: its tokens, or more if these are unusually long."""
        return max(len(self._token_ends(text)), math.ceil(len(text) / MOST_CHARACTERS_PER_TOKEN))

    def _sentence_splitter(self, chunk_tokens: int) -> Any:
        from llama_index.core.node_parser import SentenceSplitter

        return SentenceSplitter(
            chunk_size=chunk_tokens,
            chunk_overlap=0,  # ours is added with its offsets known
            tokenizer=lambda text: range(self._size(text)),  # it takes the length
            paragraph_separator="\n\n",
            chunking_tokenizer_fn=split_sentences,
        )

    @cached_property
    def _markdown(self) -> Any:
        from llama_index.core.node_parser import MarkdownNodeParser

        return MarkdownNodeParser.from_defaults(header_path_separator=_JOINT, include_prev_next_rel=False)


@dataclass(frozen=True)
class _Section:
    """Characters [start, end) under the headings of `path`."""

    start: int
    end: int
    path: tuple[str, ...]
    page: int | None


def split_sentences(text: str) -> list[str]:
    """Sentences and lines with the white space behind them: joined, they are the text."""
    starts = [0, *_sentence_starts(text, 0, len(text))]
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _sentence_starts(text: str, start: int, end: int) -> list[int]:
    """Where the sentences after the first begin within [start, end)."""
    ends = (match.end() for match in _SENTENCE_END.finditer(text, start, end))
    return [at for at in ends if start < at < end]


def _align(text: str, piece: str, at: int) -> _Span:
    """The span at or after `at` that holds `piece`'s words with white space between them, nothing else.

    Raises: IntegrityError if it is not there: then the library changed the text, and no citation would hold.
    """
    start = None
    for word in piece.split():
        found = text.find(word, at)
        if found < 0 or text[at:found].strip():
            raise IntegrityError(f"the splitter returned text that the document does not hold: {word[:40]!r}")
        start = found if start is None else start
        at = found + len(word)
    return (at, at) if start is None else (start, at)


def _as_node(text: str) -> Any:
    from llama_index.core.schema import TextNode

    class UnhashedNode(TextNode):  # type: ignore[misc]  # untyped
        # LlamaIndex hashes the whole document again for each section of it (node_utils.py says so itself).
        @property
        def hash(self) -> str:
            return ""

    return UnhashedNode(text=text)
