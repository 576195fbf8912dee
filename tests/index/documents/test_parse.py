"""Files of every format into text."""

from pathlib import Path

import pytest
from handmade_files import write_docx, write_epub, write_pdf, write_pptx, write_xlsx

from index.documents.media_types import HTML
from index.documents.parse import ParsedDocument, parse


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


def test_word_divided_between_lines_is_whole(tmp_path: Path) -> None:
    assert read(write_pdf(tmp_path / "a.pdf", [["the encryp-", "tion keys"]])).text == "the encryption keys"


def test_page_that_ends_within_a_sentence_goes_on(tmp_path: Path) -> None:
    assert read(write_pdf(tmp_path / "a.pdf", [["It goes"], ["on."], ["New."]])).text == "It goes\non.\n\nNew."


def test_pdf_of_500_pages_is_read(tmp_path: Path) -> None:
    document = read(write_pdf(tmp_path / "a.pdf", [[f"Page {number}."] for number in range(1, 501)]))
    page = document.pages[499]
    assert (page.number, document.text[page.start : page.end]) == (500, "Page 500.")


def test_slides_are_pages(tmp_path: Path) -> None:
    path = write_pptx(tmp_path / "a.pptx", [("Plan", "First\vline"), ("Costs", "<!-- Slide number: 9 -->")])
    document = read(path)
    assert document.title == "Plan"
    assert [document.text[page.start : page.end] for page in document.pages] == [
        "# Plan\nFirst\nline",
        "# Costs\n<!-- Slide number: 9 -->",
    ]


def test_sheets_are_tables_under_their_names(tmp_path: Path) -> None:
    rows = [["part", "price", "note"], ["lid | cap", 2.5, None], [], ["bolt\nM4", 3, "in\nstock"]]
    path = write_xlsx(tmp_path / "stock.xlsx", {"Parts": rows, "Empty": [], "More": [["x"], [1]]})
    assert read(path).title == "stock"
    assert read(path).text == (
        "## Parts\n\n| part | price | note |\n| --- | --- | --- |\n"
        "| lid \\| cap | 2.5 |\n| bolt M4 | 3 | in stock |\n"
        "\n## More\n\n| x |\n| --- |\n| 1 |"
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_is_a_table(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "a.csv"
    lines = [["part", "price"], ["lid", '"1,5; or 2"'], ["bolt", "3"], ["nut", "4"]]
    path.write_bytes("\r\n".join(delimiter.join(line) for line in lines).encode("utf-8-sig"))
    assert read(path).text == ("| part | price |\n| --- | --- |\n| lid | 1,5; or 2 |\n| bolt | 3 |\n| nut | 4 |")


def test_epub_chapters_become_markdown_in_order(tmp_path: Path) -> None:
    path = write_epub(tmp_path / "a.epub", ["<h1>One</h1><p>First.</p>", "<h1>Two</h1><p>Last.</p>"], title="Saga")
    assert read(path).title == "Saga"
    assert read(path).text.endswith("# One\n\nFirst.\n\n# Two\n\nLast.")


def test_source_code_is_literal_and_named_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "run.py"
    path.write_text("# comment\nrun()\n")
    document = parse(path, "tools/run.py")
    assert (document.title, document.text) == ("tools/run.py", "# comment\nrun()\n")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Größe über alles.", "utf-8"),
        ("Größe über alles.", "utf-16"),
        ("Größe über alles.", "cp1252"),
        ("Le café est très cher à l\u2019hôtel.", "cp1252"),
        ("El niño comió piñas.", "latin-1"),
        ("Zażółć gęślą jaźń. Proszę zamknąć drzwi, dziękuję bardzo.", "cp1250"),
        ("Привет, как дела? Это документ о принтерах и сканерах.", "cp1251"),  # noqa: RUF001
        ("これは日本語の文書です。プリンターの説明書。", "cp932"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.html", "a.py"])
def test_text_is_read_in_the_encoding_it_was_saved_in(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert text in read(tmp_path / name).text


def test_damaged_utf8_is_still_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Größe, Länge, Übermaß, Öl, süß, für, ".encode() * 3 + b"\xff end")
    assert read(tmp_path / "a.txt").text.endswith("für, \ufffd end")


def test_html_names_its_encoding(tmp_path: Path) -> None:
    page = '<meta charset="iso-8859-9"><p>şu ğıüö'
    (tmp_path / "a.html").write_bytes(page.encode("iso-8859-9"))
    assert read(tmp_path / "a.html").text == "şu ğıüö"
