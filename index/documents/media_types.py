"""The formats: which suffix means which, and what they are called."""

from pathlib import Path

from index.documents.document import UnparsableDocument

_OFFICE = "application/vnd.openxmlformats-officedocument"

MARKDOWN = "text/markdown"
PLAIN = "text/plain"
CODE = "text/x-source-code"
CSV = "text/csv"
HTML = "text/html"
DOCX = f"{_OFFICE}.wordprocessingml.document"
PPTX = f"{_OFFICE}.presentationml.presentation"
XLSX = f"{_OFFICE}.spreadsheetml.sheet"
EPUB = "application/epub+zip"
PDF = "application/pdf"

WITH_HEADINGS = {MARKDOWN, HTML, DOCX, PPTX, XLSX, EPUB}  # kept as Markdown
LITERAL = {MARKDOWN, PLAIN, CODE}  # kept as they are
PACKAGES = {DOCX, PPTX, XLSX, EPUB}  # ZIP archives

NAMES = {
    MARKDOWN: "a Markdown file",
    PLAIN: "a text file",
    CODE: "a text file",
    CSV: "a CSV file",
    HTML: "an HTML page",
    DOCX: "a Word document",
    PPTX: "a PowerPoint presentation",
    XLSX: "an Excel workbook",
    EPUB: "an EPUB book",
    PDF: "a PDF file",
}

CODE_SUFFIXES = """
    .bash .bat .c .cc .cfg .clj .cmake .conf .cpp .cs .css .cxx .dart .ex .exs .fs .go .gradle .graphql .groovy .h
    .hpp .hs .ini .ipp .java .jl .js .jsx .kt .kts .lua .m .mjs .ml .mm .nim .php .pl .pm .properties .proto .ps1
    .py .pyi .r .rb .rs .scala .scss .sh .sql .swift .tcl .tf .toml .ts .tsx .vb .vue .xml .yaml .yml .zig .zsh
"""

MEDIA_TYPES = {
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".txt": PLAIN,
    ".text": PLAIN,
    ".log": PLAIN,
    ".rst": PLAIN,
    ".tex": PLAIN,
    ".json": PLAIN,
    ".jsonl": PLAIN,
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".docx": DOCX,
    ".pptx": PPTX,
    ".xlsx": XLSX,
    ".csv": CSV,
    ".tsv": CSV,
    ".epub": EPUB,
    ".pdf": PDF,
    **dict.fromkeys(CODE_SUFFIXES.split(), CODE),
}


def media_type_of(filename: str) -> str:
    """Raises: UnparsableDocument if the suffix is not one of those that are read."""
    suffix = Path(filename).suffix.lower()
    if suffix not in MEDIA_TYPES:
        known = ", ".join(known for known, kind in MEDIA_TYPES.items() if kind != CODE)
        raise UnparsableDocument(
            f"its format {suffix or 'without a suffix'} is not one of {known} and source code (.py, .js, …)"
        )
    return MEDIA_TYPES[suffix]
