"""One file in, its text out.

Parsers of packed and marked-up formats may crash or hang on a hostile file: index/documents/parser_process.py
calls them.
"""

import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import ParseError

from index.documents.archive import refuse_hostile_archive
from index.documents.document import ParsedDocument, Reading, UnparsableDocument, refuse_too_long
from index.documents.media_types import (
    CODE,
    CSV,
    DOCX,
    EPUB,
    HTML,
    MARKDOWN,
    PACKAGES,
    PDF,
    PLAIN,
    PPTX,
    WITH_HEADINGS,
    XLSX,
    media_type_of,
)
from index.documents.readers.office import read_docx, read_epub, read_pptx
from index.documents.readers.pdf import read_pdf
from index.documents.readers.tables import read_csv, read_xlsx
from index.documents.readers.text import read_html, read_text
from index.documents.sniff import File, refuse_mislabelled

__all__ = ["WITH_HEADINGS", "ParsedDocument", "UnparsableDocument", "media_type_of", "parse"]

# Their first heading says more than the properties, which writers copy from one file to the next.
TITLED_BY_HEADING = {MARKDOWN, HTML, DOCX, PPTX}

_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*)$", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def parse(path: Path, filename: str) -> ParsedDocument:
    """Reads the file at `path` as what the suffix of `filename` says it is.

    Raises: UnparsableDocument if it is of an unknown format, mislabelled, empty, encrypted, damaged, a bomb or
        too long.
    """
    file = File(path, filename, media_type_of(filename))
    refuse_mislabelled(file)
    reading = _read(file)
    text = _encodable(reading.text) if reading.pages else clean_text(reading.text)
    refuse_too_long(len(text))
    if not text.strip():
        raise UnparsableDocument("it holds no text")
    return ParsedDocument(_title(file, replace(reading, text=text)), text, reading.pages, file.media_type)


def _read(file: File) -> Reading:
    try:
        if file.media_type in PACKAGES:
            refuse_hostile_archive(file.path)
        return _READERS[file.media_type](file.path)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UnparsableDocument(f"it is damaged: its ZIP archive is torn ({error})") from None
    except ParseError as error:
        raise UnparsableDocument(f"it is damaged: its XML is torn ({error})") from None


def _title(file: File, reading: Reading) -> str:
    heading = _first_heading(reading.text) if file.media_type in TITLED_BY_HEADING else ""
    by_name = file.filename if file.media_type == CODE else Path(file.filename).stem
    return " ".join(_encodable(heading or reading.title or by_name).split())


def clean_text(text: str) -> str:
    """One kind of line end, and nothing that a database or a JSON reader would refuse."""
    return _encodable(text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", ""))


def _encodable(text: str) -> str:
    """Nothing that a database or a JSON reader would refuse; of the same length."""
    return text.encode("utf-8", "replace").decode()


def _first_heading(text: str) -> str:
    found = _HEADING.search(_FENCE.sub("", text))
    return found.group(1).rstrip().rstrip("#").rstrip() if found else ""


_READERS: dict[str, Callable[[Path], Reading]] = {
    MARKDOWN: read_text,
    PLAIN: read_text,
    CODE: read_text,
    CSV: read_csv,
    HTML: read_html,
    DOCX: read_docx,
    PPTX: read_pptx,
    XLSX: read_xlsx,
    EPUB: read_epub,
    PDF: read_pdf,
}
