"""The formats of data sets, and a row of each as chat.

`prompt-completion`: OpenAI's old one, also TRL's with lists of messages. `alpaca`: instruction, input and output,
perhaps system and history. `sharegpt`: conversations of from and value, with the roles that LLaMA-Factory adds.
`chat`: messages, also in the old form with functions. What is wrong in a row is left to rules.py where
that finds it.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

from local_llm.errors import InvalidInputError
from local_llm.json_lines import LineError, parse_json, quoted
from training.examples.functions import with_tools
from training.examples.rules import kind, shown

Format = Literal["auto", "prompt-completion", "alpaca", "sharegpt", "chat"]

# What each format's rows are made of; other columns are left out, and named at the end.
COLUMNS = {
    "prompt-completion": {"prompt", "completion"},
    "alpaca": {"instruction", "input", "output", "system", "history"},
    "sharegpt": {"conversations", "system", "tools"},
    "chat": {"messages", "tools", "parallel_tool_calls", "functions"},
}
# The columns by which a format is told.
TELLING = {
    "chat": {"messages"},
    "sharegpt": {"conversations"},
    "alpaca": {"instruction", "output"},
    "prompt-completion": {"prompt", "completion"},
}
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "system",
    "function_call": "function_call",
    "tool_call": "function_call",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
}
SHAREGPT_TURN = {"from", "value", "role", "content", "weight", "tool_calls", "tool_call_id"}


class RowError(Exception):
    """Why a row cannot be converted; each argument is a reason."""


def format_of(row: dict[str, Any]) -> str:
    """Raises: InvalidInputError if the columns of a row do not tell."""
    for name, columns in TELLING.items():
        if columns <= row.keys():
            return name
    raise InvalidInputError(
        f"the columns {quoted(sorted(row))} are of no format that is known",
        hint=f"name it with --format: {', '.join(get_args(Format)[1:])}",
        param="format",
    )


def left_out(row: dict[str, Any], format: str) -> set[str]:
    """Columns, and keys of turns, that a format has no use for."""
    turns = row.get("conversations") if format == "sharegpt" else None
    keys = {key for turn in (turns if isinstance(turns, list) else ()) if isinstance(turn, dict) for key in turn}
    return (row.keys() - COLUMNS[format]) | {f"conversations[].{key}" for key in keys - SHAREGPT_TURN}


def as_chat(row: dict[str, Any], format: str, system: str | None = None) -> dict[str, Any]:
    """Raises: RowError."""
    return _with_system(CONVERTERS[format](row), system)


def _from_prompt_completion(row: dict[str, Any]) -> dict[str, Any]:
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return {"messages": [_chat_message(message) for message in [*prompt, *completion]]}
    # Completions used to begin with a space and to end with a line break, for the tokenizer's sake.
    asked, answered = _text(row, "prompt").strip(), _text(row, "completion").strip()
    return {"messages": [_said("user", asked), _said("assistant", answered)]}


def _from_alpaca(row: dict[str, Any]) -> dict[str, Any]:
    messages = list(_system_column(row))
    for turn in row.get("history") or []:
        if not isinstance(turn, list) or len(turn) != 2:
            raise RowError(f"history must be pairs of question and answer, found {shown(turn)}")
        messages += [_said("user", turn[0]), _said("assistant", turn[1])]
    asked = "\n\n".join(part for part in (_text(row, "instruction"), _text(row, "input", needed=False)) if part)
    return {"messages": [*messages, _said("user", asked), _said("assistant", _text(row, "output"))]}


def _from_sharegpt(row: dict[str, Any]) -> dict[str, Any]:
    turns = row.get("conversations")
    if not isinstance(turns, list):
        raise RowError(f"conversations must be a list of turns, found {kind(turns)}")
    messages = [*_system_column(row), *_turns(turns)]
    tools = _tools(row.get("tools"))
    return {"messages": messages, "tools": tools} if tools else {"messages": messages}


def _from_chat(row: dict[str, Any]) -> dict[str, Any]:
    kept = {key: row[key] for key in COLUMNS["chat"] & row.keys() if row[key] is not None}
    if isinstance(kept.get("messages"), list):
        kept["messages"] = [_chat_message(message) for message in kept["messages"]]
    if "tools" in kept:
        kept["tools"] = _tools(kept["tools"])
    return with_tools(kept)


CONVERTERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "prompt-completion": _from_prompt_completion,
    "alpaca": _from_alpaca,
    "sharegpt": _from_sharegpt,
    "chat": _from_chat,
}


# ShareGPT


def _turns(turns: list[Any]) -> Iterator[dict[str, Any]]:
    open_calls: list[str] = []
    for position, turn in enumerate(turns):
        where = f"conversations[{position}]"
        if not isinstance(turn, dict):
            raise RowError(f"{where} must be an object, found {kind(turn)}")
        if turn.get("tool_calls") or turn.get("tool_call_id"):
            yield _chat_message(turn)
            continue
        name, value = _either(turn, "from", "role"), _either(turn, "value", "content")
        role = _sharegpt_role(name, where)
        if role == "function_call":
            calls = list(_calls(value, position, where))
            open_calls = [call["id"] for call in calls]
            yield {"role": "assistant", "tool_calls": calls, **_weight(turn)}
        elif role == "tool":
            if not open_calls:
                raise RowError(f"{where} is from {name}, but no function was called before")
            yield {**_said("tool", value), "tool_call_id": open_calls.pop(0)}
        else:
            yield {**_said(role, value), **_weight(turn)}


def _either(turn: dict[str, Any], key: str, other: str) -> Any:
    return turn[key] if turn.get(key) is not None else turn.get(other)


def _sharegpt_role(name: Any, where: str) -> str:
    role = SHAREGPT_ROLES.get(str(name).lower().replace("-", "_"))
    if role is None:
        raise RowError(f"{where} is from {shown(name)}; expected one of {', '.join(SHAREGPT_ROLES)}")
    return role


def _calls(value: Any, position: int, where: str) -> Iterator[dict[str, Any]]:
    """The calls in a turn: JSON of one {name, arguments}, or of a list of them."""
    calls = _parsed(value, f"{where}.value")
    for number, call in enumerate(calls if isinstance(calls, list) else [calls]):
        if not isinstance(call, dict):
            raise RowError(f"{where}.value must hold an object with name and arguments, found {kind(call)}")
        function = {"name": call.get("name"), "arguments": _as_json(call.get("arguments", {}))}
        yield {"id": f"call_{position}_{number}", "type": "function", "function": function}


def _weight(turn: dict[str, Any]) -> dict[str, Any]:
    return {} if turn.get("weight") is None else {"weight": turn["weight"]}


# Parts of rows


def _said(role: str, text: Any) -> dict[str, Any]:
    return {"role": role, "content": text}


def _system_column(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if row.get("system"):
        yield _said("system", row["system"])


def _with_system(row: dict[str, Any], system: str | None) -> dict[str, Any]:
    messages = row.get("messages")
    if system is None or not isinstance(messages, list):
        return row
    if messages and isinstance(messages[0], dict) and messages[0].get("role") in ("system", "developer"):
        return row
    return {**row, "messages": [_said("system", system), *messages]}


def _text(row: dict[str, Any], column: str, *, needed: bool = True) -> str:
    text = row.get(column)
    if text is None and not needed:
        return ""
    if not isinstance(text, str):
        raise RowError(f"{column} must be a text, found {kind(text)}")
    if needed and not text.strip():
        raise RowError(f"{column} is empty")
    return text


def _chat_message(message: Any) -> Any:
    """Without the nulls that tables put where a message has no such key; arguments as JSON text."""
    if not isinstance(message, dict):
        return message
    kept = {key: value for key, value in message.items() if value is not None}
    if isinstance(kept.get("tool_calls"), list):
        kept["tool_calls"] = [_chat_call(call) for call in kept["tool_calls"]]
        if not kept["tool_calls"]:
            del kept["tool_calls"]
    return kept


def _chat_call(call: Any) -> Any:
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        return call
    function = call["function"]
    return {**call, "function": {**function, "arguments": _as_json(function.get("arguments"))}}


def _tools(value: Any) -> Any:
    """A list of tools, also from a column of JSON, also of bare functions."""
    tools = _parsed(value, "tools") if isinstance(value, str) and value.strip() else value or []
    if not isinstance(tools, list):
        return tools
    return [
        {"type": "function", "function": _without_nulls(tool)}
        if isinstance(tool, dict) and "function" not in tool
        else _without_nulls(tool)
        for tool in tools
    ]


def _parsed(text: Any, where: str) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return parse_json(text)
    except LineError as error:
        raise RowError(f"{where}: {error}") from None


def _as_json(arguments: Any) -> Any:
    """Arguments as the API's text. In tables they are objects, with nulls for the keys of other rows."""
    if not isinstance(arguments, dict):
        return arguments
    return json.dumps(_without_nulls(arguments), ensure_ascii=False, default=str)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
