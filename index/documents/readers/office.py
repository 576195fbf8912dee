"""DOCX, PPTX and EPUB: Markdown by markitdown."""

import re
import zipfile
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

from index.documents.document import Reading, join_pages

DUBLIN_CORE_TITLE = "{http://purl.org/dc/elements/1.1/}title"
CORE_PROPERTIES = "docProps/core.xml"

# markitdown writes this before each slide, counting from 1.
_SLIDE = re.compile(r"^<!-- Slide number: (\d+) -->$", re.MULTILINE)


def read_docx(path: Path) -> Reading:
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter

    result = DocxConverter().convert(BytesIO(path.read_bytes()), StreamInfo(extension=".docx"))
    return Reading(core_title(path), result.markdown)


def read_pptx(path: Path) -> Reading:
    from markitdown import StreamInfo
    from markitdown.converters import PptxConverter

    result = PptxConverter().convert(BytesIO(path.read_bytes()), StreamInfo(extension=".pptx"))
    slides = _slides(result.markdown.replace("\v", "\n"))  # PowerPoint's line break within a paragraph
    text, pages = join_pages(slides, ["\n\n"] * (len(slides) - 1))
    return Reading(core_title(path), text, pages)


def read_epub(path: Path) -> Reading:
    from markitdown import StreamInfo
    from markitdown.converters import EpubConverter

    result = EpubConverter().convert(BytesIO(path.read_bytes()), StreamInfo(extension=".epub"))
    return Reading((result.title or "").strip(), result.markdown)


def core_title(path: Path) -> str:
    """The title in an Office file's properties; "" if there is none."""
    with zipfile.ZipFile(path) as archive:
        if CORE_PROPERTIES not in archive.namelist():
            return ""
        properties = ElementTree.fromstring(archive.read(CORE_PROPERTIES))
    return (properties.findtext(DUBLIN_CORE_TITLE) or "").strip()


def _slides(markdown: str) -> list[str]:
    """The slides' texts. A mark that is not the next slide's was written by the author."""
    starts: list[re.Match[str]] = []
    for mark in _SLIDE.finditer(markdown):
        if int(mark.group(1)) == len(starts) + 1:
            starts.append(mark)
    ends = [*(mark.start() for mark in starts[1:]), len(markdown)]
    return [markdown[mark.end() : end].strip() for mark, end in zip(starts, ends, strict=True)]
