"""Files that give no text: each is told by its reason, harms nothing, and the next is read."""

import os
import resource
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from handmade_files import write_docx, write_epub, write_pdf, write_pptx, write_xlsx, write_zip

from index.documents.parse import UnparsableDocument, parse
from index.documents.parser_process import ParserProcess

MIB = 1 << 20
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500)
ENTITIES = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;"><!ENTITY f SYSTEM
"file:///etc/passwd">]><x xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>&b;&f;</dc:title></x>"""
RIGHTS = '<encryption><CipherReference URI="OPS/chapter0.xhtml"/></encryption>'


def cut_short(path: Path, share: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def spoiled(path: Path) -> Path:
    """Bytes of the largest packed part are flipped: its checksum no longer holds."""
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.compress_size)
    data = bytearray(path.read_bytes())
    middle = entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2
    data[middle] ^= 0xFF
    path.write_bytes(data)
    return path


def marked_encrypted(path: Path) -> Path:
    """The flag of each entry says that it is encrypted, in the archive's directory."""
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data[at + 8] |= 1
        at = data.find(b"PK\x01\x02", at + 1)
    path.write_bytes(data)
    return path


def written(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


def of_size(size: int) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.touch()
        os.truncate(path, size)
        return path

    return write


Make = Callable[[Path], Path]

BAD_FILES: list[tuple[str, Make, str]] = [
    ("empty.md", written(b""), "it is empty"),
    ("empty.pdf", written(b""), "it is empty"),
    ("blank.txt", written(b" \n\t\n"), "it holds no text"),
    ("blank.html", written(b"<script>alert(1)</script><style>b{}</style>"), "it holds no text"),
    ("blank.xlsx", lambda path: write_xlsx(path, {"Sheet": []}), "it holds no text"),
    ("blank.csv", written(b"\n\n"), "it holds no text"),
    ("scan.pdf", lambda path: write_pdf(path, [[], []]), "it holds no text: its pages are empty or images"),
    ("sheet.xls", written(OLE), "its format .xls is not one of .md, "),
    ("README", written(b"x"), "its format without a suffix is not one of .md, "),
    ("data.txt", written(b"a\0b" * 9), "it holds binary data, not text"),
    ("noise.txt", written(bytes(range(128, 256)) * 2 + b"\x81\x8d\xff" * 9), "it is text in an unknown encoding"),
    ("mark.txt", written(b"\xff\xfe\xff"), "it is damaged: it begins as UTF-16 text but does not go on so"),
    # Mislabelled
    ("a.pdf", lambda path: write_docx(path, ["Text."]), "it is named .pdf but is a Word document"),
    ("b.pdf", written(b"<!DOCTYPE html><p>Text"), "it is named .pdf but is an HTML page"),
    ("c.pdf", written(b"plain words"), "it is named .pdf but is not a PDF file"),
    ("d.docx", lambda path: write_pdf(path, [["Text"]]), "it is named .docx but is a PDF file"),
    ("e.docx", lambda path: write_zip(path, {"a.txt": "x"}), "it is named .docx but is a ZIP archive"),
    ("f.docx", written(OLE), "it is named .docx but is an Office file of the old kind (.doc, .xls, .ppt)"),
    ("g.xlsx", lambda path: write_pptx(path, [("A", "B")]), "it is named .xlsx but is a PowerPoint presentation"),
    ("h.txt", written(b"\x89PNG\r\n\x1a\n" + bytes(20)), "it is named .txt but is a PNG image"),
    ("i.md", lambda path: write_pdf(path, [["Text"]]), "it is named .md but is a PDF file"),
    ("j.epub", lambda path: write_xlsx(path, {"S": [[1]]}), "it is named .epub but is an Excel workbook"),
    ("k.html", written(b"\x1f\x8b\x08" + bytes(20)), "it is named .html but is a gzip archive"),
    # Encrypted
    ("secret.pdf", lambda path: write_pdf(path, [["x"]], encrypted=True), "it is encrypted"),
    ("secret.docx", written(OLE + "EncryptedPackage".encode("utf-16-le")), "it is encrypted"),
    ("locked.docx", lambda path: marked_encrypted(write_docx(path, ["Text."])), "it is encrypted"),
    (
        "rights.epub",
        lambda path: write_epub(path, ["<p>x"], more={"META-INF/encryption.xml": RIGHTS}),
        "it is encrypted (digital rights management)",
    ),
    # Damaged
    ("torn.pdf", lambda path: cut_short(write_pdf(path, [["Text"]] * 9)), "it is damaged: its end is missing"),
    ("torn.docx", lambda path: cut_short(write_docx(path, ["Text."])), "it is damaged: its end is missing or"),
    ("torn.pptx", lambda path: cut_short(write_pptx(path, [("A", "B")])), "it is damaged: its end is missing or"),
    ("torn.epub", lambda path: cut_short(write_epub(path, ["<p>x"])), "it is damaged: its end is missing or"),
    ("junk.pdf", written(b"%PDF-1.4 nothing %%EOF"), "it is damaged: Failed to load document"),
    ("spoiled.pptx", lambda path: spoiled(write_pptx(path, [("A", "B")])), "it is damaged: "),
    (
        "parts.xlsx",
        lambda path: write_zip(path, {"[Content_Types].xml": "<x/>", "xl/a.xml": "<x/>"}),
        "it is damaged: ",
    ),
    # Bombs
    (
        "bomb.docx",
        lambda path: write_docx(path, ["x"], more={"a.xml": "0" * 99 * MIB}),
        "it would unpack to 104 MB",
    ),
    (
        "files.epub",
        lambda path: write_epub(path, ["x"], more={f"{number}": "" for number in range(20_001)}),
        "it is packed from 20,005 files, more than 20,000",
    ),
    (
        "entities.docx",
        lambda path: write_docx(path, ["x"], more={"docProps/app.xml": ENTITIES}),
        "its part docProps/app.xml declares XML entities",
    ),
    (
        "utf16.docx",
        lambda path: write_docx(path, ["x"], more={"custom.xml": ENTITIES.encode("utf-16")}),
        "its part custom.xml declares XML entities",
    ),
    ("long.txt", of_size(90_000_000), "its text is longer than 20,000,000 characters: split the file"),
]


@pytest.fixture(scope="module")
def parser() -> Iterator[ParserProcess]:
    with ParserProcess(timeout_seconds=60) as made:
        yield made


@pytest.mark.parametrize(("name", "make", "reason"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
def test_bad_file_is_told_by_its_reason(
    tmp_path: Path, parser: ParserProcess, name: str, make: Make, reason: str
) -> None:
    path = make(tmp_path / name)
    with pytest.raises(UnparsableDocument) as caught:
        parser.parse(path, name)
    assert caught.value.message.startswith(reason)
    good = write_docx(tmp_path / "good.docx", ["Text."])
    assert parser.parse(good, good.name) == parse(good, good.name)


def test_a_server_with_thousands_of_open_files_reads_on(tmp_path: Path) -> None:
    """select() knows no descriptor beyond 1,023, and an open collection has several."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(2_000, before[1])), before[1]))
    path = write_docx(tmp_path / "good.docx", ["Text."])
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]
    try:
        with ParserProcess(timeout_seconds=60) as parser:
            assert parser.parse(path, path.name) == parse(path, path.name)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_folder_and_pipe_are_no_documents(tmp_path: Path, parser: ParserProcess) -> None:
    (tmp_path / "folder.md").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    for name in ("folder.md", "pipe.txt"):
        with pytest.raises(UnparsableDocument, match="not a regular file"):
            parser.parse(tmp_path / name, name)


def test_scripts_of_a_page_are_no_text(tmp_path: Path, parser: ParserProcess) -> None:
    path = tmp_path / "a.html"
    path.write_text("<script>steal()</script><p onclick='steal()'>Text</p><iframe src='http://a.b'></iframe>")
    assert parser.parse(path, path.name).text == "Text"


def test_page_nested_beyond_recursion_is_read_or_refused(tmp_path: Path, parser: ParserProcess) -> None:
    path = tmp_path / "deep.html"
    path.write_text("<div>" * 50_000 + "core" + "</div>" * 50_000)
    try:
        assert "core" in parser.parse(path, path.name).text
    except UnparsableDocument as error:
        assert error.message.startswith(("it is nested too deeply", "its parser crashed"))  # noqa: PT017


def slow_page(path: Path) -> Path:
    """HTML that takes far longer to parse than any limit here."""
    path.write_text("<table><tr><td>" * 200 + "<p>x</p>" * 2_000_000)
    return path


def test_parser_that_takes_too_long_is_ended_and_replaced(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text("<p>Text")
    with ParserProcess(timeout_seconds=3) as parser:
        slow = slow_page(tmp_path / "slow.html")
        with pytest.raises(UnparsableDocument, match="longer than 3 s"):
            parser.parse(slow, slow.name)
        assert parser.parse(page, page.name) == parse(page, page.name)


def large_page(path: Path) -> Path:
    """HTML of more bytes than the memory allowed: no parser comes to it."""
    path.write_text("<p>Text")
    os.truncate(path, 400 * MIB)
    return path


def test_parser_that_takes_too_much_memory_is_told_and_replaced(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text("<p>Text")
    with ParserProcess(timeout_seconds=60, memory_bytes=320 * MIB) as parser:
        parser.parse(page, page.name)
        large = large_page(tmp_path / "large.html")
        with pytest.raises(UnparsableDocument, match="more than 320 MiB of memory"):
            parser.parse(large, large.name)
        assert parser.parse(page, page.name) == parse(page, page.name)


def test_memory_that_runs_out_anywhere_in_a_parser_costs_one_document(tmp_path: Path) -> None:
    """Where a library gets none, it may raise, end the process or go on for ever: each is told."""
    page, slow = tmp_path / "a.html", slow_page(tmp_path / "slow.html")
    page.write_text("<p>Text")
    with ParserProcess(timeout_seconds=15, memory_bytes=240 * MIB) as parser:
        parser.parse(page, page.name)
        with pytest.raises(UnparsableDocument, match=r"of memory|longer than 15 s"):
            parser.parse(slow, slow.name)
        assert parser.parse(page, page.name) == parse(page, page.name)


def test_crashed_parser_costs_one_document(tmp_path: Path) -> None:
    page, slow = tmp_path / "a.html", slow_page(tmp_path / "slow.html")
    page.write_text("<p>Text")
    with ParserProcess(timeout_seconds=60) as parser:
        parser.parse(page, page.name)
        assert parser._child is not None
        threading.Timer(0.3, parser._child.kill).start()
        with pytest.raises(UnparsableDocument, match=r"crashed \(SIGKILL\)"):
            parser.parse(slow, slow.name)
        assert parser.parse(page, page.name) == parse(page, page.name)
