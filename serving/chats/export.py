"""Reviewed chats as a training file: each chat one example, whose last answer is what is learned.

Every example is judged by the rules of training files before it is written, so the file passes them as a whole.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from local_llm.state import ChatRow
from serving.chats.origins import Origin, origin_of
from training.examples.rules import reasons_against

FUNCTION_KEYS = ("name", "description", "parameters", "strict")
MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")

Message = dict[str, Any]


@dataclass(frozen=True)
class Exported:
    """A chat as a line of a training file, or the reason why it can be none.

    `origin`: what documents it was made from; None: from none.
    """

    chat_id: str
    line: bytes | None
    reason: str | None = None
    origin: Origin | None = None


def export(rows: Iterable[ChatRow], *, with_context: bool) -> Iterator[Exported]:
    for row in rows:
        if _was_cut(row):
            yield Exported(row.id, None, "the answer was cut off at its longest length, and is not corrected")
            continue
        example = example_of(row, with_context=with_context)
        reasons = reasons_against(example, "supervised")
        if reasons:
            yield Exported(row.id, None, reasons[0])
        else:
            line = json.dumps(example, ensure_ascii=False).encode() + b"\n"
            yield Exported(row.id, line, origin=origin_of(row, example, with_context=with_context))


def example_of(row: ChatRow, *, with_context: bool) -> dict[str, Any]:
    """`with_context`: the messages as the model saw them; else as the client sent them.

    Earlier answers of the chat were not reviewed: nothing is learned from them.
    """
    asked = row.prompt["messages"] if with_context and row.prompt else row.request["messages"]
    messages = [_message(message) for message in asked]
    for message in messages:
        if message.get("role") == "assistant":
            message["weight"] = 0
    example: dict[str, Any] = {"messages": [*messages, _answer(row)]}
    if row.request.get("tools"):
        example["tools"] = [_tool(tool) for tool in row.request["tools"]]
    return example


def _answer(row: ChatRow) -> Message:
    if row.correction is not None:
        return {"role": "assistant", "content": row.correction}
    message = row.answer["choices"][0]["message"]
    return _message({**message, "role": "assistant", "content": _without_markers(message)})


def _without_markers(message: Message) -> Any:
    """The content without the markers of citations: those are written by us, not by the model."""
    content = message.get("content")
    for note in reversed(message.get("annotations") or ()):
        place = note.get("url_citation")
        if place and isinstance(content, str):
            content = content[: place["start_index"]] + content[place["end_index"] :]
    return content


def _message(message: Message) -> Message:
    kept = {key: message[key] for key in MESSAGE_KEYS if message.get(key) is not None}
    if not kept.get("tool_calls"):
        kept.pop("tool_calls", None)
        return kept
    kept["tool_calls"] = [
        {
            "id": call.get("id"),
            "type": "function",
            "function": {key: call["function"].get(key) for key in ("name", "arguments")},
        }
        for call in kept["tool_calls"]
    ]
    return kept


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function") or {}
    kept = {key: function[key] for key in FUNCTION_KEYS if function.get(key) is not None}
    return {"type": tool.get("type"), "function": kept}


def _was_cut(row: ChatRow) -> bool:
    return row.correction is None and row.answer["choices"][0].get("finish_reason") == "length"
