"""What belongs together in a document: headings' texts, slides, long tables. The home of LlamaIndex.

Its Markdown parser finds the headings. It gives text without offsets, so what it returns is looked up in the
document, word by word if need be: what a passage cites is literally there.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from typing import Any

from index.documents.boundaries import CODE, PROSE, TABLE, Grain, skip_blank
from index.documents.document import ParsedDocument
from index.documents.media_types import CODE as CODE_TYPE
from index.documents.media_types import WITH_HEADINGS
from index.documents.tokens import MeasuredText
from index.interface import Page
from local_llm.errors import IntegrityError

# LlamaIndex joins the path with a string of our choice: one that no heading holds.
_JOINT = "\x1f"
_HEADING_LINE = re.compile(r"#+\s.*")
# A row of cells, a row of dashes, rows of cells.
_TABLE = re.compile(r"^[ \t]*\|.*\|[ \t]*\n[ \t]*\|[ \t:|-]+\|[ \t]*(?:\n[ \t]*\|.*)*", re.MULTILINE)

Span = tuple[int, int]


@dataclass(frozen=True)
class Section:
    """Characters [start, end) under the headings of `path`. `table_header`: the first row of a long table."""

    start: int
    end: int
    path: tuple[str, ...] = ()
    grain: Grain = PROSE
    table_header: str = ""


@dataclass(frozen=True)
class _Headed:
    path: tuple[str, ...]
    line: Span
    body: Span


def sections_of(document: ParsedDocument) -> Iterator[Section]:
    """The document's sections in order: every word is in one of them or in the path of one."""
    if document.media_type == CODE_TYPE:
        yield Section(0, len(document.text), grain=CODE)
    elif document.media_type in WITH_HEADINGS:
        slides = [(page.start, page.end) for page in document.pages]
        for start, end in slides or [(0, len(document.text))]:
            yield from _by_headings(document.text, start, end)
    else:
        yield from _by_pages(document)


def tables_apart(measured: MeasuredText, section: Section, room: int) -> Iterator[Section]:
    """The section, but what is before, in and after each table that does not fit a passage on its own."""
    at = section.start
    if section.grain is PROSE and measured.size(section.start, section.end) > room:
        for found in _TABLE.finditer(measured.text, section.start, section.end):
            if measured.size(*found.span()) > room:
                yield replace(section, start=at, end=found.start())
                header = found.group().partition("\n")[0].strip()
                yield replace(section, start=found.start(), end=found.end(), grain=TABLE, table_header=header)
                at = found.end()
    yield replace(section, start=at)


def _by_pages(document: ParsedDocument) -> Iterator[Section]:
    """Pages, or runs of them whose text goes on: the parser puts an empty line between others."""
    run: list[Page] = []
    for page in document.pages or (Page(1, 0, len(document.text)),):
        if run and document.text[run[-1].end : page.start] != "\n":
            yield Section(run[0].start, run[-1].end)
            run = []
        run.append(page)
    yield Section(run[0].start, run[-1].end)


def _by_headings(text: str, start: int, end: int) -> Iterator[Section]:
    """A heading with nothing below it is no path of any text: it is text itself."""
    found = list(_headed(text, start, end))
    for one, following in zip_longest(found, found[1:]):
        if one.body[0] < one.body[1]:
            yield Section(one.body[0], one.body[1], one.path)
        elif following is None or not _is_below(following.path, one.path):
            yield Section(one.line[0], one.line[1], one.path[:-1])


def _is_below(path: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return len(path) > len(other) and path[: len(other)] == other


def _headed(text: str, start: int, end: int) -> Iterator[_Headed]:
    at = start
    for node in _markdown_parser().get_nodes_from_node(_as_node(text[start:end])):
        path = tuple(part for part in node.metadata["header_path"].split(_JOINT) if part)
        first, _, rest = node.text.partition("\n")
        line = (at, at)
        if _HEADING_LINE.match(first):
            line = _locate(text, first, at)
            heading = first.lstrip("#").strip()
            path, body, at = ((*path, heading) if heading else path), rest, line[1]
        else:
            body = node.text
        span = _locate(text, body, at)
        at = span[1]
        yield _Headed(path, line, span)


def _locate(text: str, piece: str, at: int) -> Span:
    """The span at or after `at` that holds `piece`'s words with white space between them, nothing else.

    Raises: IntegrityError if it is not there: then the library changed the text, and no citation would hold.
    """
    piece = piece.strip()
    start = skip_blank(text, at, len(text)) if piece else at
    if text.startswith(piece, start):
        return start, start + len(piece)
    for word in piece.split():  # LlamaIndex puts one space for what is between # and heading
        at = skip_blank(text, at, len(text))
        if not text.startswith(word, at):
            raise IntegrityError(f"the splitter returned text that the document does not hold: {word[:40]!r}")
        at += len(word)
    return start, at


@cache
def _markdown_parser() -> Any:
    from llama_index.core.node_parser import MarkdownNodeParser

    return MarkdownNodeParser.from_defaults(header_path_separator=_JOINT, include_prev_next_rel=False)


def _as_node(text: str) -> Any:
    return _node_class()(text=text)


@cache
def _node_class() -> Any:
    from llama_index.core.schema import TextNode

    class UnhashedNode(TextNode):  # type: ignore[misc]  # untyped
        # LlamaIndex hashes the whole document again for each section of it (node_utils.py says so itself).
        @property
        def hash(self) -> str:
            return ""

    return UnhashedNode
