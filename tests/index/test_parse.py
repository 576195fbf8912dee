"""Files of every format into text, and those that give none into a reason."""

import os
import threading
from pathlib import Path

import pytest
from handmade_files import write_docx, write_pdf

from index.documents.parse import HTML, ParsedDocument, UnparsableDocument, parse
from index.documents.parser_process import ParserProcess


def read(path: Path) -> ParsedDocument:
    return parse(path, path.name)


def test_markdown_title_is_its_first_heading_outside_code(tmp_path: Path) -> None:
    path = tmp_path / "file.md"
    path.write_bytes("\ufeff```\n# no\n```\r\n\r\n## Größe ##\r\nText\r\n".encode())
    assert read(path).title == "Größe"
    assert read(path).text == "```\n# no\n```\n\n## Größe ##\nText\n"


def test_plain_text_is_named_after_its_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("# not a heading")
    assert read(tmp_path / "notes.txt").title == "notes"


def test_html_becomes_markdown(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<title>Page</title><script>x()</script><body><p>One</p><h2>Two</h2><ul><li>3</ul>")
    assert read(path) == ParsedDocument("Two", "One\n\n## Two\n\n* 3", (), HTML)
    path.write_text("<title>Page</title><body><p>One</p>")
    assert read(path).title == "Page"


def test_docx_becomes_markdown(tmp_path: Path) -> None:
    path = write_docx(tmp_path / "a.docx", ["First.", "Second."], heading="Plan", title="Core")
    assert (read(path).title, read(path).text) == ("Plan", "# Plan\n\nFirst.\n\nSecond.")
    assert read(write_docx(path, ["First."], title="Core")).title == "Core"


def test_pdf_is_read_page_by_page(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", [["One page", "two lines"], [], ["Third"]], title="Terms")
    document = read(path)
    assert document.title == "Terms"
    assert [(page.number, document.text[page.start : page.end]) for page in document.pages] == [
        (1, "One page\ntwo lines"),
        (2, ""),
        (3, "Third"),
    ]


def test_files_without_text_are_named_with_the_reason(tmp_path: Path) -> None:
    with ParserProcess(timeout_seconds=60) as parser:

        def reason_of(path: Path) -> str:
            with pytest.raises(UnparsableDocument) as caught:
                parser.parse(path, path.name)
            return caught.value.message

        (tmp_path / "sheet.xls").write_text("1")
        (tmp_path / "latin.md").write_bytes(b"Gr\xfc\xdfe")
        (tmp_path / "zip.docx").write_bytes(b"\xd0\xcf\x11\xe0")
        (tmp_path / "torn.pdf").write_bytes(b"%PDF-1.4 nothing")
        assert reason_of(tmp_path / "sheet.xls").startswith("its format .xls is not one of")
        assert reason_of(tmp_path / "latin.md") == "it is not UTF-8 (byte 2)"
        assert reason_of(tmp_path / "zip.docx") == "it is encrypted or not a DOCX file"
        assert reason_of(tmp_path / "torn.pdf").startswith("it is damaged")
        assert reason_of(write_pdf(tmp_path / "scan.pdf", [[]])) == "it holds no text"
        assert reason_of(write_pdf(tmp_path / "secret.pdf", [["x"]], encrypted=True)) == "it is encrypted"
        good = write_docx(tmp_path / "good.docx", ["Text."])
        assert parser.parse(good, good.name) == read(good)


def test_parser_that_takes_too_long_is_ended_and_replaced(tmp_path: Path) -> None:
    page, pipe = tmp_path / "a.html", tmp_path / "endless.html"
    page.write_text("<p>Text")
    os.mkfifo(pipe)  # opening it waits for a writer that never comes
    with ParserProcess(timeout_seconds=2) as parser:
        with pytest.raises(UnparsableDocument, match="longer than 2 s"):
            parser.parse(pipe, pipe.name)
        assert parser.parse(page, page.name) == read(page)


def test_crashed_parser_costs_one_document(tmp_path: Path) -> None:
    page, pipe = tmp_path / "a.html", tmp_path / "endless.html"
    page.write_text("<p>Text")
    os.mkfifo(pipe)
    with ParserProcess(timeout_seconds=60) as parser:
        parser.parse(page, page.name)
        assert parser._child is not None
        threading.Timer(0.3, parser._child.kill).start()
        with pytest.raises(UnparsableDocument, match="status -9"):
            parser.parse(pipe, pipe.name)
        assert parser.parse(page, page.name) == read(page)
