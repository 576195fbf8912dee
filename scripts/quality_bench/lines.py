"""JSON lines: read whole, or kept one by one so that work that was cut off goes on."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    return _parsed(path.read_bytes())


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Only if it changes anything: what was made of the file is known by its bytes."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


class Journal:
    """Rows appended to a file as they come, found again by a key. A line that a kill cut off was not written."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._rows = {row["key"]: row for row in _whole(path)}

    def get(self, key: str) -> Row | None:
        return self._rows.get(key)

    def add(self, key: str, row: Row) -> Row:
        kept = {"key": key, **row}
        with self._path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(kept, ensure_ascii=False) + "\n")
        self._rows[key] = kept
        return kept


def _whole(path: Path) -> list[Row]:
    """The rows that are whole; the file is cut behind them."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        path.write_bytes(whole)
    return _parsed(whole)


def _parsed(data: bytes) -> list[Row]:
    """In bytes only a line feed ends a line: in texts there are others (U+0085, U+2028), which stand in answers."""
    return [json.loads(line) for line in data.splitlines()]
