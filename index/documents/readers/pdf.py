"""PDF by page."""

import re
from pathlib import Path
from typing import Any

from index.documents.document import Reading, UnparsableDocument, join_pages, refuse_too_long

PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD in fpdfview.h
END_MARK = b"%%EOF"
# Source: Adobe's implementation notes to PDF 1.7 (PDF Reference, appendix H, note 18).
END_MARK_BYTES = 1024

# pdfium writes U+0002 for the hyphen of a word divided at a line's end, and nothing for the line end.
_DIVIDED = "\x02"
_SENTENCE_ENDED = re.compile(r"[.!?:;…\u3002\uff01\uff1f][\"')\]\u201d\u2019»]*\s*\Z")


def read_pdf(path: Path) -> Reading:
    from pypdfium2 import PdfDocument, PdfiumError

    _refuse_cut_short(path)
    try:
        with PdfDocument(path) as pdf:
            title = pdf.get_metadata_value("Title").strip()
            texts = _page_texts(pdf)
    except PdfiumError as error:
        encrypted = error.err_code == PASSWORD_ERROR
        raise UnparsableDocument("it is encrypted" if encrypted else f"it is damaged: {error}") from None
    if not any(texts):
        raise UnparsableDocument("it holds no text: its pages are empty or images")
    return Reading(title, *join_pages(texts, [_joint(text) for text in texts[:-1]]))


def _refuse_cut_short(path: Path) -> None:
    """pdfium repairs what it can: of a file cut short it would give a part, and nobody would know."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - END_MARK_BYTES))
        if END_MARK not in stream.read():
            raise UnparsableDocument("it is damaged: its end is missing")


def _page_texts(pdf: Any) -> list[str]:
    texts, characters = [], 0
    for page in pdf:
        text = page.get_textpage().get_text_bounded()
        page.close()
        texts.append(text.replace(_DIVIDED, "").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").strip())
        characters += len(texts[-1])
        refuse_too_long(characters)
    return texts


def _joint(text: str) -> str:
    """A page that ends within a sentence goes on in the next: only a line ends."""
    return "\n\n" if not text or _SENTENCE_ENDED.search(text[-8:]) else "\n"
