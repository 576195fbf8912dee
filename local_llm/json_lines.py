"""Lines of a JSONL file and strict JSON: what two readers could understand differently is refused."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

# A line of 128k tokens of text is about half a MiB; far longer ones are not chat examples.
MAXIMUM_LINE_BYTES = 4 * 1024**2
# The JSON Schema of a function's parameters takes two levels a property; real ones stay below 20.
MAXIMUM_DEPTH = 64

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
IMPORT = "`local-llm train dataset import` turns it into JSONL"
# How files begin that are no JSONL at all: one problem says more than one a line.
OTHER_FILES = {
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it",
    b"PAR1": f"a Parquet file; {IMPORT}",
}


class LineError(Exception):
    """Why a line, or a text that should be JSON, cannot be read at all."""


def numbered_lines(handle: IO[bytes], digest: Any = None) -> Iterator[tuple[int, bytes | None]]:
    """Lines counted from 1; None stands for one that is too long, which is hashed but never held whole.

    `digest`, of hashlib, takes in all bytes that are read.
    """
    number, hashed = 0, (lambda _: None) if digest is None else digest.update
    while piece := handle.readline(MAXIMUM_LINE_BYTES + 1):
        number += 1
        hashed(piece)
        whole = piece.endswith(b"\n") or len(piece) <= MAXIMUM_LINE_BYTES
        while not piece.endswith(b"\n") and (piece_after := handle.readline(MAXIMUM_LINE_BYTES)):
            hashed(piece_after)
            piece = piece_after
        yield number, _strip_mark(piece, number) if whole else None


def refuse_other_files(first_line: bytes | None) -> str | None:
    """What the file is, if its first line shows that it is no JSONL."""
    if first_line is None:
        return None
    for start, kind in OTHER_FILES.items():
        if first_line.startswith(start):
            return f"not JSONL but {kind}"
    if first_line.strip() == b"[":
        return f"not JSONL but a JSON array; {IMPORT}"
    if first_line.strip() == b"{":
        return "not JSONL: an object that goes over several lines; expected each on a line of its own"
    return None


def parse_line(line: bytes | None) -> Any:
    """Raises: LineError."""
    if line is None:
        raise LineError(f"longer than {MAXIMUM_LINE_BYTES:,} bytes")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LineError(f"not UTF-8: byte {error.start + 1} is 0x{line[error.start]:02x}") from None
    if text.startswith("\ufeff"):
        raise LineError("a byte order mark; only the file's first line may have one")
    return parse_json(text)


def parse_json(text: str) -> Any:
    """Raises: LineError, also for keys given twice, NaN, and numbers and depths beyond what others read."""
    try:
        value = DECODER.decode(text)
    except ValueError as error:
        raise explain(error) from None
    except RecursionError:
        raise LineError("not JSON: nested too deeply") from None
    refuse_depth(value)
    return value


def explain(error: ValueError, start: int = 0) -> LineError:
    """What Python's JSON decoder raises, in words for people. `start` is where the value begins in its text."""
    if isinstance(error, json.JSONDecodeError):
        return LineError(f"not JSON: {error.msg} at character {error.pos - start + 1}")
    return LineError("not JSON: a number has too many digits")  # Python limits them against slow conversion


def refuse_depth(value: Any) -> None:
    """Level by level, so that no value is too deep for the check itself. Raises: LineError."""
    level = [value]
    for _ in range(MAXIMUM_DEPTH + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise LineError(f"nested too deeply: more than {MAXIMUM_DEPTH} levels")


def _children(value: Any) -> Iterator[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (child for child in inner if isinstance(child, dict | list))


def _strip_mark(line: bytes, number: int) -> bytes:
    return line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise LineError(f"{quoted(twice)} given more than once")
    return values


def _refuse_constant(name: str) -> None:
    raise LineError(f"not JSON: {name}")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise LineError(f"the number {digits[:40]} is too large")
    return number


def quoted(names: list[str]) -> str:
    """The first five names, fit for a message whatever is in them."""
    return ", ".join(f"`{printable(name[:60])}`" for name in names[:5])


def printable(text: str) -> str:
    """Control characters and half surrogate pairs written out as JSON escapes."""
    escaped = json.dumps(text, ensure_ascii=False)[1:-1]
    return escaped.encode("utf-8", "backslashreplace").decode()


DECODER = json.JSONDecoder(
    object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant, parse_float=_finite
)
