"""Training files in the JSONL formats of OpenAI's fine-tuning API, checked in one pass, a line at a time.

A file is for one method: `supervised` (conversations) or `dpo` (preferences between two answers).
Source: https://platform.openai.com/docs/guides/supervised-fine-tuning (format, minimum of 10 examples, `weight`)
and https://platform.openai.com/docs/guides/direct-preference-optimization.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_llm.errors import InvalidInputError, Problem, TrainingDataError
from local_llm.json_lines import LineError, numbered_lines, parse_line, refuse_other_files
from training.examples.functions import with_tools
from training.examples.rules import MAXIMUM_PROBLEMS, ROLES, calls_of, method_of, reasons_against, text_of
from training.hyperparameters import Method

MINIMUM_EXAMPLES = 10
# A file of nothing but line ends would keep a server busy for minutes.
MAXIMUM_BLANK_LINES = 100_000
TEXT_KEYS = ("name", "tool_call_id")


@dataclass(frozen=True)
class Message:
    role: str  # system, user, assistant or tool
    content: str  # "" where a turn only calls tools
    trained: bool  # an assistant turn whose weight is 1
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()  # as in the API, but with `arguments` as an object

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates expect it, which is also what the engine hands to them.

        Source: vLLM, renderers/chat_utils.py: `arguments` as objects, no `tool_calls` where there are none.
        """
        optional = {key: getattr(self, key) for key in TEXT_KEYS if getattr(self, key) is not None}
        if self.tool_calls:
            optional["tool_calls"] = list(self.tool_calls)
        return {"role": self.role, "content": self.content, **optional}


@dataclass(frozen=True)
class Example:
    line: int  # counted from 1
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Preference:
    line: int  # counted from 1
    messages: tuple[Message, ...]  # none of them trained
    tools: tuple[dict[str, Any], ...]
    preferred: Message
    rejected: Message


@dataclass(frozen=True)
class FileSummary:
    method: Method
    examples: int
    sha256: str
    bytes: int


@dataclass(frozen=True)
class TrainingData:
    method: Method
    examples: tuple[Any, ...]  # of Example for `supervised`, of Preference for `dpo`
    sha256: str
    bytes: int


def check_training_file(
    path: Path,
    *,
    method: Method | None = None,
    minimum: int = MINIMUM_EXAMPLES,
    shown_as: str | None = None,
    param: str = "training_file",
) -> FileSummary:
    """Reads and checks the whole file and keeps nothing of it; blank lines are skipped.

    Without a `method`, the first row that can be read decides it. `param` is the request's field that named the
    file: `training_file` or `validation_file`.

    Raises: TrainingDataError with every problem (the first 100); InvalidInputError if there is no such file.
    """
    check = _Check(shown_as or path.name, method, minimum, param)
    for _ in check.rows(path):
        pass
    return check.summary()


def read_training_file(
    path: Path,
    *,
    method: Method | None = "supervised",
    minimum: int = MINIMUM_EXAMPLES,
    shown_as: str | None = None,
    param: str = "training_file",
) -> TrainingData:
    """The same, with the examples.

    Raises: as check_training_file.
    """
    check = _Check(shown_as or path.name, method, minimum, param)
    examples = tuple(_example(number, row) for number, row in check.rows(path))
    summary = check.summary()
    return TrainingData(summary.method, examples, summary.sha256, summary.bytes)


@dataclass
class _Check:
    """One pass over a file: its good rows are handed out, its problems kept."""

    name: str
    method: Method | None
    minimum: int
    param: str
    examples: int = 0
    blank_lines: int = 0
    size_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)

    def rows(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        """Good rows with their line numbers. Raises: see check_training_file."""
        if not path.is_file():
            raise InvalidInputError(f"the {self.param.replace('_', ' ')} {path} does not exist", param=self.param)
        with path.open("rb") as handle:
            for number, line in numbered_lines(handle, self.digest):
                if number == 1:
                    self._refuse_other_files(line)
                if line is not None and not line.strip():
                    self._count_blank(number)
                    continue
                row = self._row(number, line)
                if len(self.problems) >= MAXIMUM_PROBLEMS:
                    self._raise()
                if row is not None:
                    self.examples += 1
                    yield number, row
            self.size_bytes = handle.tell()
        if self.examples < self.minimum and not self.problems:
            few = f"{self.examples} example{'' if self.examples == 1 else 's'}"
            self.problems.append(Problem(0, f"it has {few}; at least {self.minimum} are needed"))
        if self.problems:
            self._raise()

    def summary(self) -> FileSummary:
        return FileSummary(self.method or "supervised", self.examples, self.digest.hexdigest(), self.size_bytes)

    def _row(self, number: int, line: bytes | None) -> dict[str, Any] | None:
        """The row of a line that has a good one."""
        try:
            row = with_tools(parse_line(line))
        except LineError as error:
            self.problems.append(Problem(number, str(error)))
            return None
        self.method = self.method or method_of(row)
        reasons = reasons_against(row, self.method or "supervised")
        self.problems += [Problem(number, reason) for reason in reasons]
        return None if reasons else row

    def _count_blank(self, number: int) -> None:
        self.blank_lines += 1
        if self.blank_lines > MAXIMUM_BLANK_LINES:
            self.problems.append(Problem(number, f"more than {MAXIMUM_BLANK_LINES:,} blank lines"))
            self._raise()

    def _refuse_other_files(self, first_line: bytes | None) -> None:
        reason = refuse_other_files(first_line)
        if reason:
            self.problems.append(Problem(1, reason))
            self._raise()

    def _raise(self) -> None:
        raise TrainingDataError(self.name, self.problems[:MAXIMUM_PROBLEMS], param=self.param)


def _example(line: int, row: dict[str, Any]) -> Example | Preference:
    if "messages" in row:
        return Example(line, tuple(_message(raw) for raw in row["messages"]), _tools(row))
    return Preference(
        line,
        messages=tuple(_message(raw, trained=False) for raw in row["input"]["messages"]),
        tools=_tools(row["input"]),
        preferred=_message(row["preferred_output"][0], trained=False),
        rejected=_message(row["non_preferred_output"][0], trained=False),
    )


def _message(raw: dict[str, Any], *, trained: bool = True) -> Message:
    role = ROLES[raw["role"]]
    return Message(
        role,
        text_of(raw.get("content")),
        trained=trained and role == "assistant" and raw.get("weight", 1) == 1,
        name=raw.get("name"),
        tool_call_id=raw.get("tool_call_id"),
        tool_calls=tuple(_call(raw_call) for raw_call in calls_of(raw)),
    )


def _call(raw: dict[str, Any]) -> dict[str, Any]:
    function = {"name": raw["function"]["name"], "arguments": json.loads(raw["function"]["arguments"])}
    return {"id": raw["id"], "type": "function", "function": function}


def _tools(row: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The tools with the keys, nulls and order in which the engine hands them to the template.

    Source: vLLM, entrypoints/generate/base/protocol.py, `FunctionDefinition`.
    """
    return tuple({"type": "function", "function": _function(tool["function"])} for tool in row.get("tools", ()))


def _function(raw: dict[str, Any]) -> dict[str, Any]:
    function = {key: raw.get(key) for key in ("name", "description", "parameters")}
    return function if raw.get("strict") is None else {**function, "strict": raw["strict"]}
