"""Write the PDF and DOCX documents of the Quillon sample world.

The texts lie in sources/ as a small subset of Markdown: one "# " title, "## " headings,
paragraphs, "- " lists, tables of "|" rows, and a line "[page]" for a page break.

    pip install reportlab python-docx
    python make_binary_documents.py

A rerun with the same library versions gives the same bytes.
"""

import datetime
import io
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

from docx import Document
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Spacer, Table

HERE = Path(__file__).resolve().parent
PDF_NAMES = ("warranty-terms", "press-p6-installation-guide", "safety-and-compliance")
DOCX_NAMES = ("onboarding-plan", "training-courses", "security-overview")
FIXED_DATE = datetime.datetime(2026, 3, 16, 9, 0, 0)
AUTHOR = "Quillon"


def parse(text):
    """Return blocks as (kind, content): title, heading, text, item, table, page."""
    blocks = []
    paragraph, rows = [], []

    def flush():
        if paragraph:
            blocks.append(("text", " ".join(paragraph)))
            paragraph.clear()
        if rows:
            blocks.append(("table", list(rows)))
            rows.clear()

    for line in map(str.strip, text.splitlines()):
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not all(cell.strip("-") == "" for cell in cells):
                rows.append(cells)
            continue
        if line.startswith(("# ", "## ", "- ")) or line in ("", "[page]"):
            flush()
            mark, _, rest = line.partition(" ")
            kind = {"#": "title", "##": "heading", "-": "item", "[page]": "page"}.get(mark)
            if kind:
                blocks.append((kind, rest))
            continue
        paragraph.append(line)
    flush()
    return blocks


def write_pdf(blocks, path):
    styles = getSampleStyleSheet()
    named = {"title": "Title", "heading": "Heading2", "text": "BodyText", "item": "BodyText"}
    grid = [("GRID", (0, 0), (-1, -1), 0.5, colors.grey), ("FONT", (0, 0), (-1, 0), "Helvetica-Bold")]
    flow = []
    for kind, content in blocks:
        if kind == "page":
            flow.append(PageBreak())
        elif kind == "table":
            flow += [Table(content, style=grid, hAlign="LEFT"), Spacer(1, 8)]
        else:
            bullet = "-" if kind == "item" else None
            flow.append(Paragraph(escape(content), styles[named[kind]], bulletText=bullet))
    title = dict(blocks)["title"]
    SimpleDocTemplate(str(path), pagesize=A4, title=title, author=AUTHOR, invariant=1).build(flow)


def write_docx(blocks, path):
    document = Document()
    for kind, content in blocks:
        if kind == "title":
            document.add_heading(content, level=1)
        elif kind == "heading":
            document.add_heading(content, level=2)
        elif kind == "item":
            document.add_paragraph(content, style="List Bullet")
        elif kind == "table":
            table = document.add_table(rows=0, cols=len(content[0]), style="Table Grid")
            for row in content:
                for cell, value in zip(table.add_row().cells, row, strict=True):
                    cell.text = value
        elif kind == "page":
            document.add_page_break()
        else:
            document.add_paragraph(content)
    properties = document.core_properties
    properties.title = dict(blocks)["title"]
    properties.author = properties.last_modified_by = AUTHOR
    properties.comments = ""
    properties.created = properties.modified = FIXED_DATE
    buffer = io.BytesIO()
    document.save(buffer)
    # A DOCX file is a zip archive: write it again with fixed time stamps.
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            info = zipfile.ZipInfo(name, FIXED_DATE.timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(info, source.read(name))


def main():
    folder = HERE / "documents"
    folder.mkdir(exist_ok=True)
    for names, suffix, write in ((PDF_NAMES, ".pdf", write_pdf), (DOCX_NAMES, ".docx", write_docx)):
        for name in names:
            blocks = parse((HERE / "sources" / f"{name}.md").read_text(encoding="utf-8"))
            write(blocks, folder / f"{name}{suffix}")
            print(f"wrote documents/{name}{suffix}")


if __name__ == "__main__":
    main()
