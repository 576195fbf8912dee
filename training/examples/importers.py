"""Data sets of other formats as training files: whole or not there, and held to the rules of training files."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from local_llm.errors import InvalidInputError, Problem, TrainingDataError
from local_llm.fileio import staged_file
from local_llm.json_lines import MAXIMUM_LINE_BYTES, LineError, parse_line
from training.examples.formats import Format, RowError, as_chat, format_of, left_out
from training.examples.rules import MAXIMUM_PROBLEMS, kind, reasons_against
from training.examples.sources import Kind, SourceRow, kind_of, read_rows

Report = Callable[[int, int], None]  # done and total, in bytes or rows

ROWS_BETWEEN_REPORTS = 500


@dataclass(frozen=True)
class ImportReport:
    rows: int
    format: str
    source: Kind
    left_out: tuple[str, ...]  # columns that the format has no use for


def import_data_set(
    source: Path,
    output: Path,
    *,
    format: Format = "auto",
    system: str | None = None,
    force: bool = False,
    report: Report | None = None,
) -> ImportReport:
    """Writes the rows of `source` to `output` as chat JSONL; `system` opens those that have no system message.

    Raises: TrainingDataError with every bad row (the first 100); InvalidInputError if the source cannot be read,
        its format not be told, or `output` exists and is not to be replaced (`force`). Nothing is written then.
    """
    _refuse_output(output, force)
    source_kind = kind_of(source)
    run = _Import(source.name, None if format == "auto" else format, system)
    try:
        with staged_file(output, replace=force) as handle:
            for row in read_rows(source, source_kind):
                run.take(row, handle, unit="line" if source_kind == "jsonl" else "row")
                if report is not None and row.number % ROWS_BETWEEN_REPORTS == 0:
                    report(row.done, row.total)
            run.finish()
    except FileExistsError:
        raise _exists(output) from None
    except OSError as error:
        raise InvalidInputError(f"{output} cannot be written: {error}", param="output") from None
    return ImportReport(run.rows, run.format or "", source_kind, tuple(sorted(run.left_out)))


@dataclass
class _Import:
    name: str
    format: str | None
    system: str | None
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)

    def take(self, row: SourceRow, handle: IO[bytes], *, unit: str) -> None:
        """Converts and writes one row, or keeps what is wrong with it. Raises: TrainingDataError at the 100th."""
        try:
            line = self._converted(row.value)
        except (RowError, LineError) as error:
            self.problems += [Problem(row.number, reason, unit) for reason in error.args]
        else:
            self.rows += 1
            handle.write(line)
        if len(self.problems) >= MAXIMUM_PROBLEMS:
            self.finish()

    def finish(self) -> None:
        """Raises: TrainingDataError if a row was bad, or there was none."""
        if not self.rows and not self.problems:
            self.problems.append(Problem(0, "it has no rows"))
        if self.problems:
            hint = "mend these rows and try again"
            raise TrainingDataError(self.name, self.problems[:MAXIMUM_PROBLEMS], param="source", hint=hint)

    def _converted(self, value: Any) -> bytes:
        if isinstance(value, LineError):
            raise value
        if not isinstance(value, dict):
            raise RowError(f"expected an object, found {kind(value)}")
        self.format = self.format or format_of(value)
        self.left_out |= left_out(value, self.format)
        converted = as_chat(value, self.format, self.system)
        reasons = reasons_against(converted, "supervised")
        if reasons:
            raise RowError(*reasons)
        line = json.dumps(converted, ensure_ascii=False, default=str).encode()
        if len(line) >= MAXIMUM_LINE_BYTES:
            raise RowError(f"longer than {MAXIMUM_LINE_BYTES:,} bytes")
        parse_line(line)  # tables may hold what JSON has no words for, such as NaN
        return line + b"\n"


def _refuse_output(output: Path, force: bool) -> None:
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise InvalidInputError(f"{output} must be a file in a folder that exists", param="output")
    if output.exists() and not force:
        raise _exists(output)


def _exists(output: Path) -> InvalidInputError:
    return InvalidInputError(f"{output} exists", hint="choose another name, or replace it: --force", param="output")
