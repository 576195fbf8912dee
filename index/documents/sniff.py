"""What a file really is: its first bytes against its suffix."""

import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

from index.documents.document import UnparsableDocument
from index.documents.media_types import DOCX, EPUB, HTML, NAMES, PACKAGES, PDF, PPTX, XLSX

HEAD_BYTES = 4096
# A PDF may begin with other bytes: readers look for its mark in the first 1,024.
# Source: Adobe's implementation notes to PDF 1.7 (PDF Reference, appendix H, note 13).
PDF_MARK_BYTES = 1024

ZIP = b"PK\x03\x04"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# The stream of an Office file with a password, named in the directory of its OLE container. Source: [MS-OFFCRYPTO].
ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")

SIGNATURES = (
    (b"%PDF-", NAMES[PDF]),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"{\\rtf", "an RTF document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
)
PARTS = (("word/", NAMES[DOCX]), ("ppt/", NAMES[PPTX]), ("xl/", NAMES[XLSX]))


@dataclass(frozen=True)
class File:
    """A file to be read as `media_type`, which the suffix of `filename` said."""

    path: Path
    filename: str
    media_type: str


def refuse_mislabelled(file: File) -> None:
    """Raises: UnparsableDocument if the file is empty, none at all, or not what its name says."""
    status = file.path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnparsableDocument("it is not a regular file")
    if not status.st_size:
        raise UnparsableDocument("it is empty")
    found, expected = content_of(file), NAMES[file.media_type]
    binary = file.media_type in PACKAGES | {PDF}
    if found == expected or (not binary and found in (None, NAMES[HTML])):
        return
    suffix = Path(file.filename).suffix
    if found is None:
        raise UnparsableDocument(f"it is named {suffix} but is not {expected}")
    raise UnparsableDocument(f"it is named {suffix} but is {found}")


def content_of(file: File) -> str | None:
    """What the bytes say the file is, in words; None if they do not say.

    Raises: UnparsableDocument if it is encrypted or a torn archive.
    """
    with file.path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if head.startswith(ZIP):
        return _archive(file.path)
    if head.startswith(OLE):
        return _ole(file.path)
    for mark, name in SIGNATURES:
        if head.startswith(mark):
            return name
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        return NAMES[HTML]
    if file.media_type == PDF and b"%PDF-" in head[:PDF_MARK_BYTES]:
        return NAMES[PDF]
    return None


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            kind = archive.read("mimetype")[:99] if "mimetype" in names else b""
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError):
        raise UnparsableDocument("it is damaged: its end is missing or its ZIP archive is torn") from None
    if kind.strip() == EPUB.encode():
        return NAMES[EPUB]
    if b"opendocument" in kind:
        return "an OpenDocument file"
    known = [name for part, name in PARTS if any(entry.startswith(part) for entry in names)]
    return known[0] if known and "[Content_Types].xml" in names else "a ZIP archive"


def _ole(path: Path) -> str:
    if ENCRYPTED_PACKAGE in path.read_bytes():
        raise UnparsableDocument("it is encrypted")
    return "an Office file of the old kind (.doc, .xls, .ppt)"
