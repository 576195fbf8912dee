"""How commands speak: the result on stdout (a table, or JSON for machines), the talk on stderr."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

# Columns of a table that goes into a file or another program: none is wrapped.
UNWRAPPED = 2_000


def talk(message: str) -> None:
    """Something a person may want to know while waiting; never part of the result."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201


def emit_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))  # noqa: T201


def emit(value: Any, text: str, *, as_json: bool) -> None:
    """The result of a command: `value` for machines, `text` for people."""
    if as_json:
        emit_json(value)
    else:
        print(text)  # noqa: T201


def emit_table(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """Rows as a table of `columns`, or all of each row as JSON."""
    if as_json:
        emit_json(list(rows))
        return
    if not rows:
        talk(empty)
        return
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    width = None if sys.stdout.isatty() else UNWRAPPED
    Console(width=width, markup=False, highlight=False).print(table)


class ProgressReport:
    """What long work calls as it goes: `report(done, total, note)`."""

    def __init__(self, progress: Progress, title: str):
        self._progress = progress
        self._task = progress.add_task(title, total=None, note="")

    def __call__(self, done: int, total: int, note: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, note=note)


@contextmanager
def progress_bar(title: str) -> Iterator[ProgressReport]:
    """A bar on stderr, drawn only where a person looks on."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield ProgressReport(progress, title)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in value)
    return str(value)
