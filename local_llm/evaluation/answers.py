"""An answer as it came, and the file in which answers last.

What was answered is on the disk before the next question is asked: an evaluation that is killed goes on where it
was, and one that is made again asks only what is new. There is a file for each model as it was defined and asked; a
record that a kill cut short is nobody's.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from local_llm.fileio import fsync_path
from local_llm.json_lines import LineError, parse_line


@dataclass(frozen=True)
class Answer:
    """`question_sha256` is that of the question's words. None: not known, or not told.

    `asked_at` is Unix time; `ttft_seconds` from asking to the first piece of text, `total_seconds` to the end, by
    the asker's clock. `refused` is what the endpoint says of its own answer. `error`: why there is none.
    """

    question_sha256: str
    text: str = ""
    citations: tuple[Mapping[str, Any], ...] = ()
    refused: bool | None = None
    model: str | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    ttft_seconds: float | None = None
    total_seconds: float | None = None
    asked_at: float | None = None
    finish_reason: str | None = None
    error: str | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None


_FIELDS = frozenset(field.name for field in fields(Answer))


class AnswerFile:
    """Appended to by one process at a time, which holds the lock of the evaluation."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._made = path.exists()

    def read(self) -> dict[str, Answer]:
        """By the questions' hashes; of two the later holds."""
        if not self._path.exists():
            return {}
        with self._path.open("rb") as handle:
            found = [_answer(line) for line in handle]
        return {answer.question_sha256: answer for answer in found if answer is not None}

    def add(self, answer: Answer) -> None:
        """Returns when it is durable. Begins a line of its own, whatever stands before."""
        record = json.dumps(asdict(answer), ensure_ascii=False).encode("utf-8", "replace")
        with self._path.open("ab", buffering=0) as handle:
            handle.write(b"\n" + record + b"\n" if self._is_torn() else record + b"\n")
            os.fsync(handle.fileno())
        if not self._made:
            fsync_path(self._path.parent)
            self._made = True

    def _is_torn(self) -> bool:
        with self._path.open("rb") as handle:
            if handle.seek(0, os.SEEK_END) == 0:
                return False
            handle.seek(-1, os.SEEK_END)
            return handle.read(1) != b"\n"


def _answer(line: bytes) -> Answer | None:
    try:
        values = parse_line(line)
    except LineError:
        return None
    if not line.endswith(b"\n") or not isinstance(values, dict) or not set(values) <= _FIELDS:
        return None
    if "question_sha256" not in values:
        return None
    return Answer(**{**values, "citations": tuple(values.get("citations", ()))})
