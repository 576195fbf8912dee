"""Rows in the old form of function calling (`functions`, `function_call`, role `function`) put into the new one.

Source: https://platform.openai.com/docs/api-reference/fine-tuning/chat-input, where both forms are described.
"""

from collections.abc import Iterator
from typing import Any


def with_tools(row: Any) -> Any:
    """The row with `tools`, `tool_calls` and role `tool`; messages keep their positions.

    Rows of the new form come back unchanged, and so does what is malformed: the rules refuse it.
    """
    if not isinstance(row, dict) or "tools" in row or not isinstance(row.get("messages"), list):
        return row
    converted = {**row, "messages": list(_messages(row["messages"]))}
    if isinstance(row.get("functions"), list):
        del converted["functions"]
        converted["tools"] = [{"type": "function", "function": function} for function in row["functions"]]
    return converted


def _messages(messages: list[Any]) -> Iterator[Any]:
    last_call = None
    for position, message in enumerate(messages):
        if not isinstance(message, dict):
            yield message
        elif "function_call" in message and "tool_calls" not in message:
            last_call = f"call_{position}"
            yield _calling(message, last_call)
        elif message.get("role") == "function" and last_call is not None and "tool_call_id" not in message:
            yield {**message, "role": "tool", "tool_call_id": last_call}
        else:
            yield message


def _calling(message: dict[str, Any], call_id: str) -> dict[str, Any]:
    rest = {key: value for key, value in message.items() if key != "function_call"}
    call = message["function_call"]
    if call is None:  # as the API's answers have it
        return rest
    return {**rest, "tool_calls": [{"id": call_id, "type": "function", "function": call}]}
