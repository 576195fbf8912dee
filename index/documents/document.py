"""What a file becomes, and what it is called when it becomes nothing."""

from dataclasses import dataclass

from index.interface import Page
from local_llm.errors import InvalidInputError

# A text longer than any book: beyond it a file is a log or a bomb, and costs the index's memory.
MOST_CHARACTERS = 20_000_000


class UnparsableDocument(InvalidInputError):  # noqa: N818 (it names the document's state, as users read it)
    """A file that gives no text. The message is the reason."""

    code = "unparsable_document"


class UnreadableDocument(UnparsableDocument):
    """A file that the system did not give us now. Nothing is said of what it holds."""


@dataclass(frozen=True)
class ParsedDocument:
    """`text` is Markdown where `media_type` has headings. `pages` is empty for formats without pages."""

    title: str
    text: str
    pages: tuple[Page, ...]
    media_type: str


@dataclass(frozen=True)
class Reading:
    """What a reader found in a file. `title` is "" if the file names none."""

    title: str
    text: str
    pages: tuple[Page, ...] = ()


def refuse_too_long(characters: int) -> None:
    """Raises: UnparsableDocument if a text has more characters than a document may."""
    if characters > MOST_CHARACTERS:
        raise UnparsableDocument(f"its text is longer than {MOST_CHARACTERS:,} characters: split the file")


def join_pages(texts: list[str], joints: list[str]) -> tuple[str, tuple[Page, ...]]:
    """The text of pages, `joints[i]` after page i, and where each page lies in it."""
    pages, parts, at = [], [], 0
    for number, (text, joint) in enumerate(zip(texts, [*joints, ""], strict=True), 1):
        pages.append(Page(number, at, at + len(text)))
        parts += [text, joint]
        at += len(text) + len(joint)
    return "".join(parts), tuple(pages)
