"""Past answers of a model that need not be there any more, from a file.

Three forms of JSON lines are read: `{"id" or "question", "answer", ...}` with, where they are known, `model`,
`citations`, `input_tokens`, `output_tokens`, `ttft_seconds`, `total_seconds`; chats, `{"messages": [...]}` whose
last message is the answer; and the output file of a batch, whose `custom_id` is the question's id.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from local_llm.errors import InvalidInputError
from local_llm.evaluation.answers import Answer
from local_llm.evaluation.fingerprint import fingerprint
from local_llm.evaluation.question_set import Question
from local_llm.evaluation.targets import RECORDED, Target
from local_llm.json_lines import LineError, numbered_lines, parse_line
from local_llm.prompts import text_of


def recorded_target(text: str, questions: Sequence[Question]) -> Target:
    """Of `FILE` or `NAME=FILE`.

    Raises: InvalidInputError naming the line that is wrong, or if no answer is to one of the questions.
    """
    name, _, file = text.rpartition("=")
    path = Path(file).expanduser()
    name = name or path.stem
    by_id = {one.id: one.asked_sha256 for one in questions}
    by_text = {_folded(one.text): one.asked_sha256 for one in questions}
    by_chat = {one.asked_sha256: one.asked_sha256 for one in questions}
    found: dict[str, Answer] = {}
    for where, row in _rows(path):
        keys, values = _read(row, where)
        hashes = [by_id.get(keys["id"]), by_chat.get(keys["chat"]), by_text.get(_folded(keys["text"]))]
        asked = next((one for one in hashes if one is not None), None)
        if asked is not None:
            found[asked] = Answer(question_sha256=asked, **values)
    if not found:
        raise InvalidInputError(
            f"{path} holds no answer to any of the questions",
            hint="lines need the question's `id` or its `question`, word for word",
            param="recorded",
        )
    model = next((one.model for one in found.values() if one.model), None)
    return Target(name=name, strategy=RECORDED, model=model, recorded=found)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open("rb") as handle:
            for number, line in numbered_lines(handle):
                where = f"{path}, line {number}"
                if line is not None and not line.strip():
                    continue
                try:
                    row = parse_line(line)
                except LineError as error:
                    raise InvalidInputError(f"{where} is {error}", param="recorded") from None
                if not isinstance(row, dict):
                    raise InvalidInputError(f"{where} is no object", param="recorded")
                yield where, row
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error}", param="recorded") from None


def _read(row: dict[str, Any], where: str) -> tuple[dict[str, str], dict[str, Any]]:
    """What tells the question, and what is known of the answer."""
    if "custom_id" in row:
        return {"id": str(row["custom_id"]), "chat": "", "text": ""}, _of_batch(row, where)
    if "messages" in row:
        return _of_chat(row, where)
    answer = row.get("answer")
    if not isinstance(answer, str):
        raise InvalidInputError(f"{where} has no `answer`, a text", param="recorded")
    identifier, question = row.get("id"), row.get("question")
    if identifier is None and not isinstance(question, str):
        raise InvalidInputError(f"{where} tells no question: expected `id` or `question`", param="recorded")
    values = {"text": answer, "citations": _citations(row, where), "model": row.get("model")}
    for name in ("input_tokens", "output_tokens"):
        values[name] = _number(row, name, where, int)
    for name in ("ttft_seconds", "total_seconds"):
        values[name] = _number(row, name, where, float)
    return {"id": str(identifier), "chat": "", "text": question or ""}, values


def _of_chat(row: dict[str, Any], where: str) -> tuple[dict[str, str], dict[str, Any]]:
    messages = row["messages"]
    good = isinstance(messages, list) and len(messages) > 1 and all(isinstance(one, dict) for one in messages)
    if not good or messages[-1].get("role") != "assistant" or messages[-2].get("role") != "user":
        raise InvalidInputError(
            f"{where}: `messages` does not end with a question and its answer", param="recorded"
        )
    keys = {"id": "", "chat": fingerprint(messages[:-1]), "text": ""}
    if len(messages) == 2:
        keys["text"] = text_of(messages[0].get("content"))
    return keys, {"text": text_of(messages[-1].get("content"))}


def _of_batch(row: dict[str, Any], where: str) -> dict[str, Any]:
    try:
        body = row["response"]["body"]
        if row.get("error") or row["response"].get("status_code", 200) != 200:
            return {"error": f"recorded as failed: {row.get('error') or body}"[:300]}
        usage = body.get("usage") or {}
        return {
            "text": text_of(body["choices"][0]["message"].get("content")),
            "model": body.get("model"),
            "input_tokens": _number(usage, "prompt_tokens", where, int),
            "output_tokens": _number(usage, "completion_tokens", where, int),
        }
    except (KeyError, IndexError, TypeError, AttributeError):
        raise InvalidInputError(f"{where} is no line of a batch of chat completions", param="recorded") from None


def _citations(row: dict[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    given = row.get("citations") or []
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise InvalidInputError(f"{where}: `citations` is no list of objects", param="recorded")
    return tuple(given)


def _number(row: Mapping[str, Any], name: str, where: str, kind: type) -> Any:
    value = row.get(name)
    if value is None:
        return None
    allowed = (int,) if kind is int else (int, float)
    if type(value) not in allowed or value < 0:
        raise InvalidInputError(
            f"{where}: `{name}` is {value!r:.40}; expected a number, 0 or more", param="recorded"
        )
    return kind(value)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
