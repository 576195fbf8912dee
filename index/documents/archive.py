"""ZIP archives that documents are packed in: refused before anything of them is unpacked."""

import zipfile
from pathlib import Path

from index.documents.document import UnparsableDocument

MOST_ENTRIES = 20_000
MOST_UNPACKED_BYTES = 1 << 30
# Deflate reaches 1,032:1, on repetition alone; the XML of real workbooks stays below 60:1.
# Small archives are let through at any ratio: they harm nobody.
MOST_RATIO = 100
ALWAYS_UNPACKED_BYTES = 16 << 20

XML_SUFFIXES = (".xml", ".rels", ".opf", ".ncx")
ENCRYPTED_ENTRY = 1  # bit of a ZIP entry's flags
RIGHTS = "META-INF/encryption.xml"  # an EPUB's list of encrypted parts; obfuscated fonts are listed too
CHAPTER_SUFFIXES = (b".xhtml", b".html", b".htm")


def refuse_hostile_archive(path: Path) -> None:
    """Raises: UnparsableDocument if it is a bomb, encrypted, or its XML declares entities."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        _refuse_bomb(entries, path.stat().st_size)
        if any(entry.flag_bits & ENCRYPTED_ENTRY for entry in entries):
            raise UnparsableDocument("it is encrypted")
        _refuse_rights(archive)
        for entry in entries:
            if entry.filename.lower().endswith(XML_SUFFIXES):
                _refuse_entities(archive.read(entry), entry.filename)


def _refuse_bomb(entries: list[zipfile.ZipInfo], packed_bytes: int) -> None:
    """Sizes as the archive states them: Python unpacks no entry beyond its stated size."""
    if len(entries) > MOST_ENTRIES:
        raise UnparsableDocument(f"it is packed from {len(entries):,} files, more than {MOST_ENTRIES:,}")
    unpacked_bytes = sum(entry.file_size for entry in entries)
    ratio = unpacked_bytes / packed_bytes
    too_dense = ratio > MOST_RATIO and unpacked_bytes > ALWAYS_UNPACKED_BYTES
    if too_dense or unpacked_bytes > MOST_UNPACKED_BYTES:
        raise UnparsableDocument(
            f"it would unpack to {unpacked_bytes / 1e6:,.0f} MB, {ratio:,.0f} times its size: a ZIP bomb?"
        )


def _refuse_rights(archive: zipfile.ZipFile) -> None:
    if RIGHTS in archive.namelist():
        listed = archive.read(RIGHTS)
        if any(suffix in listed for suffix in CHAPTER_SUFFIXES):
            raise UnparsableDocument("it is encrypted (digital rights management)")


def _refuse_entities(xml: bytes, name: str) -> None:
    """No parser is asked to expand or fetch what no writer of these formats declares."""
    if b"<!ENTITY" in xml.replace(b"\0", b""):  # in UTF-16 too
        raise UnparsableDocument(f"its part {name} declares XML entities: no document needs them")
