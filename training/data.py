"""Chat examples in the JSONL format of OpenAI's fine-tuning API, checked in one pass over the file.

Source: https://platform.openai.com/docs/guides/supervised-fine-tuning (format, minimum of 10 examples, `weight`).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from local_llm.errors import InvalidInputError, Problem, TrainingDataError

MINIMUM_EXAMPLES = 10
MAXIMUM_PROBLEMS = 100
# A line of 128k tokens of text is about half a MiB; far longer ones are not chat examples.
MAXIMUM_LINE_BYTES = 4 * 1024**2

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
EXAMPLE_KEYS = {"messages"}
MESSAGE_KEYS = {"role", "content", "name", "weight", "tool_call_id"}
TEXT_KEYS = ("name", "tool_call_id")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Message:
    role: str  # system, user, assistant or tool
    content: str
    trained: bool  # an assistant turn whose weight is 1
    name: str | None = None
    tool_call_id: str | None = None

    def for_template(self) -> dict[str, str]:
        """The message as chat templates expect it."""
        optional = {key: getattr(self, key) for key in TEXT_KEYS if getattr(self, key) is not None}
        return {"role": self.role, "content": self.content, **optional}


@dataclass(frozen=True)
class Example:
    line: int  # counted from 1
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class TrainingData:
    examples: tuple[Example, ...]
    sha256: str
    bytes: int


def read_training_file(path: Path, *, shown_as: str | None = None) -> TrainingData:
    """Reads and checks the whole file; blank lines are skipped.

    Raises: TrainingDataError with every problem (the first 100); InvalidInputError if there is no such file.
    """
    name = shown_as or path.name
    if not path.is_file():
        raise InvalidInputError(f"the training file {path} does not exist", param="training_file")
    examples: list[Example] = []
    problems: list[Problem] = []
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        for number, line in _lines(handle, digest):
            found = _check_line(number, line)
            if isinstance(found, Example):
                examples.append(found)
            elif found:
                problems += found
            if len(problems) >= MAXIMUM_PROBLEMS:
                raise TrainingDataError(name, problems[:MAXIMUM_PROBLEMS])
    if len(examples) < MINIMUM_EXAMPLES and not problems:
        few = _count(len(examples), "example")
        problems.append(Problem(0, f"it has {few}; at least {MINIMUM_EXAMPLES} are needed"))
    if problems:
        raise TrainingDataError(name, problems)
    return TrainingData(tuple(examples), digest.hexdigest(), path.stat().st_size)


class _LineError(Exception):
    """Why a line cannot be read at all."""


def _lines(handle: IO[bytes], digest: Any) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines; None stands for a line that is too long, which is hashed but never held whole."""
    number = 0
    while piece := handle.readline(MAXIMUM_LINE_BYTES + 1):
        number += 1
        digest.update(piece)
        whole = piece.endswith(b"\n") or len(piece) <= MAXIMUM_LINE_BYTES
        while not piece.endswith(b"\n") and (piece_after := handle.readline(MAXIMUM_LINE_BYTES)):
            digest.update(piece_after)
            piece = piece_after
        yield number, _strip_mark(piece, number) if whole else None


def _strip_mark(line: bytes, number: int) -> bytes:
    return line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line


def _check_line(number: int, line: bytes | None) -> Example | list[Problem] | None:
    """The line's example, or what is wrong with it; None for a blank line."""
    try:
        if line is None:
            raise _LineError(f"longer than {MAXIMUM_LINE_BYTES:,} bytes")
        if not line.strip():
            return None
        value = _parse(line)
    except _LineError as error:
        return [Problem(number, str(error))]
    reasons = _refuse_example(value)
    if reasons:
        return [Problem(number, reason) for reason in reasons]
    return Example(number, tuple(_message(raw) for raw in value["messages"]))


def _parse(line: bytes) -> Any:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _LineError(f"not UTF-8: byte {error.start + 1} is 0x{line[error.start]:02x}") from None
    try:
        value = json.loads(text, object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise _LineError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise _LineError("not JSON: nested too deeply") from None
    except ValueError:
        raise _LineError("not JSON: a number has too many digits") from None
    return value


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise _LineError(f"{_quoted(twice)} given more than once")
    return values


def _refuse_constant(name: str) -> None:
    raise _LineError(f"not JSON: {name}")


def _refuse_example(value: Any) -> list[str]:
    """Every reason why a parsed line is no example."""
    if not isinstance(value, dict):
        return [f"expected an object with `messages`, found {_kind(value)}"]
    reasons = _unknown_keys(value, EXAMPLE_KEYS, "")
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        found = _kind(messages) if "messages" in value else "none"
        return [*reasons, f"`messages` must be a list of messages, found {found}"]
    for position, message in enumerate(messages):
        reasons += _refuse_message(message, f"messages[{position}]")
    if not reasons:
        reasons = _refuse_conversation(messages)
    return reasons


def _refuse_message(message: Any, where: str) -> list[str]:
    if not isinstance(message, dict):
        return [f"{where} must be an object, found {_kind(message)}"]
    reasons = _unknown_keys(message, MESSAGE_KEYS, f"{where}: ")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        reasons.append(f"{where}.role is {_shown(role)}; expected one of {', '.join(ROLES)}")
    reasons += _refuse_text(message.get("content"), f"{where}.content")
    for key in TEXT_KEYS:
        if key in message:
            reasons += _refuse_text(message[key], f"{where}.{key}")
    if "weight" in message:
        reasons += _refuse_weight(message["weight"], role, where)
    return reasons


def _refuse_text(value: Any, where: str) -> list[str]:
    if not isinstance(value, str):
        return [f"{where} must be a text, found {_kind(value)}"]
    if not value.strip():
        return [f"{where} is empty"]
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return [f"{where} has half a surrogate pair at character {error.start + 1}"]
    return []


def _refuse_weight(weight: Any, role: Any, where: str) -> list[str]:
    if role != "assistant":
        return [f"{where}.weight: only assistant messages have a weight"]
    if type(weight) is not int or weight not in (0, 1):  # in Python, True == 1
        return [f"{where}.weight is {_shown(weight)}; expected 0 or 1"]
    return []


def _refuse_conversation(messages: list[dict[str, Any]]) -> list[str]:
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        return ["no assistant message: nothing to learn from"]
    if messages[-1]["role"] != "assistant":
        return [f"the last message is from {messages[-1]['role']}; expected assistant"]
    if all(message.get("weight", 1) == 0 for message in answers):
        return ["every assistant message has weight 0: nothing to learn from"]
    return []


def _message(raw: dict[str, Any]) -> Message:
    role = ROLES[raw["role"]]
    trained = role == "assistant" and raw.get("weight", 1) == 1
    return Message(role, raw["content"], trained, raw.get("name"), raw.get("tool_call_id"))


def _unknown_keys(value: dict[str, Any], known: set[str], where: str) -> list[str]:
    unknown = sorted(set(value) - known)
    return [f"{where}unknown key {_quoted(unknown)}"] if unknown else []


def _quoted(names: list[str]) -> str:
    return ", ".join(f"`{name[:60]}`" for name in names[:5])


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    if value in ([], ""):
        return "an empty one"
    return kinds.get(type(value), "a number")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
