"""One answer as an object, from the bytes that a client got."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from serving.answering.events import END, TokenUsage, chunk_of

# What comes in pieces; any other field of a delta is whole.
TEXTS = ("content", "refusal", "reasoning", "reasoning_content")

Answer = dict[str, Any]


def whole_answer(sent: Sequence[bytes]) -> Answer:
    """From an answer that was not streamed."""
    return json.loads(b"".join(sent))


def streamed_answer(sent: Sequence[bytes], usage: TokenUsage) -> Answer | None:
    """From the events of a stream; None if it did not come to its end."""
    answer: Answer | None = None
    choices: dict[int, dict[str, Any]] = {}
    for chunk in _chunks(sent):
        if "error" in chunk:
            return None
        if answer is None:
            answer = {key: chunk[key] for key in ("id", "created", "model", "system_fingerprint") if key in chunk}
        for piece in chunk.get("choices", ()):
            _add(choices.setdefault(piece["index"], {"index": piece["index"], "message": {}}), piece)
    if answer is None or not choices or not all(one.get("finish_reason") for one in choices.values()):
        return None
    return {
        **answer,
        "object": "chat.completion",
        "choices": [choices[index] for index in sorted(choices)],
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
    }


def said_in(sent: Sequence[bytes]) -> str:
    """The text of an answer, whole or streamed, as far as it came; of a call of tools the call."""
    choices: dict[int, dict[str, Any]] = {}
    if sent and sent[0].startswith(b"data: "):
        for chunk in _chunks(sent):
            for piece in chunk.get("choices", ()):
                _add(choices.setdefault(piece["index"], {"message": {}}), piece)
    elif sent:
        choices = dict(enumerate(whole_answer(sent).get("choices", ())))
    return "\n\n".join(_said(choices[index]) for index in sorted(choices))


def _said(choice: dict[str, Any]) -> str:
    message = choice.get("message") or {}
    said = choice.get("text") or message.get("content")
    return said or json.dumps(message.get("tool_calls") or "", ensure_ascii=False)


def _chunks(sent: Sequence[bytes]) -> Iterable[dict[str, Any]]:
    for event in b"".join(sent).split(END):
        chunk = chunk_of(event)
        if chunk is not None:
            yield chunk


def _add(choice: dict[str, Any], piece: dict[str, Any]) -> None:
    message = choice["message"]
    if "text" in piece:  # of a bare completion
        choice["text"] = choice.get("text", "") + piece["text"]
    for key, value in piece.get("delta", {}).items():
        if key == "tool_calls":
            for call in value or ():
                _add_call(message.setdefault("tool_calls", []), call)
        elif key in TEXTS and isinstance(value, str):
            message[key] = (message.get(key) or "") + value
        elif value is not None:
            message[key] = value
    if piece.get("finish_reason"):
        choice["finish_reason"] = piece["finish_reason"]
    said = (piece.get("logprobs") or {}).get("content")
    if said:
        choice.setdefault("logprobs", {"content": []})["content"].extend(said)


def _add_call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    index = piece.get("index", 0)
    while len(calls) <= index:
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call, function = calls[index], piece.get("function") or {}
    call["id"] = piece.get("id") or call["id"]
    call["function"]["name"] = function.get("name") or call["function"]["name"]
    call["function"]["arguments"] += function.get("arguments") or ""
