"""Rows of data sets in other people's files: JSONL, a JSON array or Parquet, told apart by their first bytes.

All are read as a stream: a line, an element or a batch of rows at a time.
"""

import codecs
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from local_llm.errors import InvalidInputError
from local_llm.json_lines import (
    BYTE_ORDER_MARK,
    DECODER,
    MAXIMUM_LINE_BYTES,
    LineError,
    explain,
    numbered_lines,
    parse_line,
    refuse_depth,
    refuse_other_files,
)

Kind = Literal["jsonl", "json", "parquet"]

PARQUET = b"PAR1"
FIRST_BYTES = 1 << 16
BATCH_ROWS = 256
CHUNK_BYTES = 1 << 16
WHITESPACE = " \t\r\n"
AFTER_VALUE = (",", "]", *WHITESPACE)


@dataclass(frozen=True)
class SourceRow:
    number: int  # counted from 1: lines of JSONL, rows else
    value: Any  # a LineError where the row cannot be read
    done: int  # of `total`, in bytes or rows: how far reading has come
    total: int


def kind_of(path: Path) -> Kind:
    """Raises: InvalidInputError if there is no such file, or it is an archive."""
    if not path.is_file():
        raise InvalidInputError(f"{path} does not exist, or is no file", param="source")
    with path.open("rb") as handle:
        start = handle.read(FIRST_BYTES)
    if start.startswith(PARQUET):
        return "parquet"
    if start.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"["):
        return "json"
    refusal = refuse_other_files(start)
    if refusal:
        raise InvalidInputError(f"{path} is {refusal}", param="source")
    return "jsonl"


def read_rows(path: Path, kind: Kind) -> Iterator[SourceRow]:
    """Raises: InvalidInputError if a Parquet file is broken."""
    if kind == "jsonl":
        return _lines(path)
    return _array(path) if kind == "json" else _parquet(path)


def _lines(path: Path) -> Iterator[SourceRow]:
    total = path.stat().st_size
    with path.open("rb") as handle:
        for number, line in numbered_lines(handle, hashlib.sha256()):
            if line is None or line.strip():
                yield SourceRow(number, _parsed(line), handle.tell(), total)


def _parsed(line: bytes | None) -> Any:
    try:
        return parse_line(line)
    except LineError as error:
        return error


def _array(path: Path) -> Iterator[SourceRow]:
    """Elements up to the first mistake: what follows it cannot be told apart."""
    total, number = path.stat().st_size, 0
    with path.open("rb") as handle:
        array = ArrayReader(handle)
        try:
            for element in array.elements():
                number += 1
                yield SourceRow(number, element, handle.tell(), total)
        except LineError as error:
            yield SourceRow(number + 1, error, handle.tell(), total)


class ArrayReader:
    """The elements of one JSON array, of which only a piece of text is held at a time."""

    def __init__(self, handle: IO[bytes], chunk_bytes: int = CHUNK_BYTES):
        self._handle = handle
        self._chunk_bytes = chunk_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._position = 0
        self._ended = False

    def elements(self) -> Iterator[Any]:
        """Raises: LineError."""
        self._take("[")
        if self._next() != "]":
            yield self._value()
            while self._next() == ",":
                self._take(",")
                yield self._value()
        self._take("]")
        if self._next():
            raise LineError("not JSON: something follows the array's end")

    def _next(self) -> str:
        """The next character that is not white space, not yet taken; "" at the end."""
        while True:
            while self._position < len(self._text):
                if self._text[self._position] not in WHITESPACE:
                    return self._text[self._position]
                self._position += 1
            if not self._read(self._chunk_bytes):
                return ""

    def _take(self, character: str) -> None:
        found = self._next()
        if found != character:
            raise LineError(f"not JSON: expected {character}, found {found or 'the end of the file'}")
        self._position += 1

    def _value(self) -> Any:
        self._next()
        size = self._chunk_bytes
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._position)
            except RecursionError:
                raise LineError("not JSON: nested too deeply") from None
            except ValueError as error:
                # It may only be cut off: more text shows.
                if len(self._text) - self._position > MAXIMUM_LINE_BYTES or not self._read(size):
                    raise explain(error, self._position) from None
                size *= 2
                continue
            if self._text[end : end + 1] not in AFTER_VALUE and self._read(size):  # a number may go on
                continue
            self._position = end
            refuse_depth(value)
            return value

    def _read(self, size: int) -> bool:
        """More text behind what is left of it; False at the end of the file."""
        if self._ended:
            return False
        chunk = self._handle.read(size)
        self._ended = not chunk
        try:
            text = self._decoder.decode(chunk, final=self._ended)
        except UnicodeDecodeError as error:
            raise LineError(f"not UTF-8: byte 0x{error.object[error.start]:02x}") from None
        self._text = self._text[self._position :] + text
        self._position = 0
        return True


def _parquet(path: Path) -> Iterator[SourceRow]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            total, number = file.metadata.num_rows, 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield SourceRow(number, row, number, total)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInputError(f"{path} is a broken Parquet file: {reason}", param="source") from None
