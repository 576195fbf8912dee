"""CSV and XLSX into Markdown tables, a row a line."""

import csv
import re
from collections.abc import Iterable, Iterator
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from index.documents.decode import decode
from index.documents.document import Reading, UnparsableDocument, refuse_too_long
from index.documents.readers.office import core_title

DELIMITERS = ",;\t|"


def read_csv(path: Path) -> Reading:
    from markitdown import StreamInfo
    from markitdown.converters import CsvConverter

    try:
        text = _comma_separated(decode(path.read_bytes()))
        result = CsvConverter().convert(BytesIO(text.encode()), StreamInfo(extension=".csv", charset="utf-8"))
    except csv.Error as error:
        raise UnparsableDocument(f"it is not a table: {error}") from None
    return Reading("", result.markdown)


def _comma_separated(text: str) -> str:
    """markitdown knows the comma only; semicolons and tabs are as common. The header line tells."""
    header = text.lstrip().partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    if delimiter == ",":
        return text
    written = StringIO(newline="")
    csv.writer(written).writerows(csv.reader(StringIO(text, newline=""), delimiter=delimiter))
    return written.getvalue()


def read_xlsx(path: Path) -> Reading:
    """Each sheet a section with one table. Formulas are shown as the values last computed."""
    from openpyxl import load_workbook

    workbook = load_workbook(path, read_only=True, data_only=True)
    try:
        sheets = [_sheet(sheet) for sheet in workbook.worksheets]
    finally:
        workbook.close()
    return Reading(core_title(path), "\n\n".join(filter(None, sheets)))


def _sheet(sheet: Any) -> str:
    sheet.reset_dimensions()  # what the file states may be wrong, and pads every row to it
    rows = list(_bounded(_filled_rows(sheet.iter_rows(values_only=True))))
    if not rows:
        return ""
    width = max(map(len, rows))
    header = rows[0] + [""] * (width - len(rows[0]))
    return "\n".join([f"## {_cell(sheet.title)}", "", *map(_row, [header, ["---"] * width, *rows[1:]])])


def _filled_rows(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[str]]:
    """Rows that hold something, without the empty cells behind the last that does."""
    for row in rows:
        cells = [_cell(value) for value in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            yield cells


def _bounded(rows: Iterable[list[str]]) -> Iterator[list[str]]:
    characters = 0
    for row in rows:
        characters += sum(map(len, row)) + len(row)
        refuse_too_long(characters)
        yield row


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    """One line that does not end its cell early."""
    return "" if value is None else re.sub(r"\s+", " ", str(value)).strip().replace("|", "\\|")
