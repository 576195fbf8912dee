"""Formats that are text already, and HTML."""

import re
from io import BytesIO
from pathlib import Path

from index.documents.decode import decode
from index.documents.document import Reading

_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([\w-]{1,40})""", re.IGNORECASE)
DECLARATION_BYTES = 1024  # Source: the HTML standard, which wants it there


def read_text(path: Path) -> Reading:
    return Reading("", decode(path.read_bytes()))


def read_html(path: Path) -> Reading:
    from markitdown import StreamInfo
    from markitdown.converters import HtmlConverter

    data = path.read_bytes()
    declared = _DECLARED.search(data[:DECLARATION_BYTES])
    text = decode(data, declared.group(1).decode() if declared else None)
    # Told the encoding, markitdown guesses none.
    info = StreamInfo(extension=".html", charset="utf-8")
    result = HtmlConverter().convert(BytesIO(text.encode("utf-8", "replace")), info)
    return Reading((result.title or "").strip(), result.markdown)


def load_libraries() -> None:
    """markitdown takes a second of work to import, and much of a disk: not the first document's time."""
    import markitdown.converters  # noqa: F401
