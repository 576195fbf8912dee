"""One file in, its text out: the home of markitdown and pypdfium2.

Parsers of HTML, DOCX and PDF may crash or hang on a hostile file: index/parser_process.py calls them.
"""

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

from index.interface import Page
from local_llm.errors import InvalidInputError

MARKDOWN = "text/markdown"
PLAIN = "text/plain"
HTML = "text/html"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PDF = "application/pdf"

MEDIA_TYPES = {
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".txt": PLAIN,
    ".text": PLAIN,
    ".html": HTML,
    ".htm": HTML,
    ".docx": DOCX,
    ".pdf": PDF,
}
WITH_HEADINGS = {MARKDOWN, HTML, DOCX}  # kept as Markdown

DUBLIN_CORE_TITLE = "{http://purl.org/dc/elements/1.1/}title"
PDFIUM_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD in fpdfview.h

_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


class UnparsableDocument(InvalidInputError):  # noqa: N818 (it names the document's state, as users read it)
    """A file that gives no text. The message is the reason."""

    code = "unparsable_document"


@dataclass(frozen=True)
class ParsedDocument:
    """`text` is Markdown where `media_type` has headings. `pages` is empty for formats without pages."""

    title: str
    text: str
    pages: tuple[Page, ...]
    media_type: str


def parse(path: Path, filename: str) -> ParsedDocument:
    """Reads the file at `path` as what the suffix of `filename` says it is.

    Raises: UnparsableDocument if it is of an unknown format, empty, encrypted or damaged.
    """
    media_type = media_type_of(filename)
    title, text, pages = _READERS[media_type](path)
    text = text if pages else clean_text(text)
    if not text.strip():
        raise UnparsableDocument("it holds no text")
    heading = _first_heading(text) if media_type in WITH_HEADINGS else None
    return ParsedDocument(clean_text(heading or title or Path(filename).stem), text, tuple(pages), media_type)


def media_type_of(filename: str) -> str:
    suffix = Path(filename).suffix.lower()
    if suffix not in MEDIA_TYPES:
        known = ", ".join(MEDIA_TYPES)
        raise UnparsableDocument(f"its format {suffix or 'without a suffix'} is not one of {known}")
    return MEDIA_TYPES[suffix]


def clean_text(text: str) -> str:
    """One kind of line end, and nothing that a database or a JSON reader would refuse."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return text.encode("utf-8", "replace").decode()


def _first_heading(text: str) -> str | None:
    found = _HEADING.search(_FENCE.sub("", text))
    return found.group(1).strip() if found else None


_Read = tuple[str, str, list[Page]]  # title, text, pages


def _read_text(path: Path) -> _Read:
    try:
        return "", path.read_bytes().decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        raise UnparsableDocument(f"it is not UTF-8 (byte {error.start})") from None


def _read_html(path: Path) -> _Read:
    from markitdown import StreamInfo
    from markitdown.converters import HtmlConverter

    result = HtmlConverter().convert(BytesIO(path.read_bytes()), StreamInfo(extension=".html"))
    return (result.title or "").strip(), result.markdown, []


def _read_docx(path: Path) -> _Read:
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter

    if not zipfile.is_zipfile(path):
        raise UnparsableDocument("it is encrypted or not a DOCX file")
    result = DocxConverter().convert(BytesIO(path.read_bytes()), StreamInfo(extension=".docx"))
    return _docx_title(path), result.markdown, []


def _docx_title(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        if "docProps/core.xml" not in archive.namelist():
            return ""
        properties = ElementTree.fromstring(archive.read("docProps/core.xml"))
    return (properties.findtext(DUBLIN_CORE_TITLE) or "").strip()


def _read_pdf(path: Path) -> _Read:
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        with PdfDocument(path) as pdf:
            title = pdf.get_metadata_value("Title").strip()
            texts = [clean_text(page.get_textpage().get_text_bounded()) for page in pdf]
    except PdfiumError as error:
        encrypted = error.err_code == PDFIUM_PASSWORD_ERROR
        raise UnparsableDocument("it is encrypted" if encrypted else f"it is damaged: {error}") from None
    return title, "\n\n".join(texts), _pages(texts)


def _pages(texts: list[str]) -> list[Page]:
    pages, start = [], 0
    for number, text in enumerate(texts, 1):
        pages.append(Page(number, start, start + len(text)))
        start += len(text) + len("\n\n")
    return pages


_READERS: dict[str, Callable[[Path], _Read]] = {
    MARKDOWN: _read_text,
    PLAIN: _read_text,
    HTML: _read_html,
    DOCX: _read_docx,
    PDF: _read_pdf,
}
