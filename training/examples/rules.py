"""What a row of a training file must be: every rule, each with the reason that is told.

Source: https://platform.openai.com/docs/api-reference/fine-tuning/chat-input and .../preference-input; the limits
on tools are those of the chat completions API.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from local_llm.json_lines import LineError, parse_json, quoted
from training.hyperparameters import Method

MAXIMUM_PROBLEMS = 100
MAXIMUM_TOOLS = 128
FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
CONVERSATION_KEYS = {"messages", "tools", "parallel_tool_calls"}
PREFERENCE_KEYS = {"input", "preferred_output", "non_preferred_output"}
MESSAGE_KEYS = {"role", "content", "name"}
# Keys of one role only, each with what is said when another role has it.
KEYS_OF_ROLES = {
    "weight": ("assistant", "only assistant messages have a weight"),
    "tool_calls": ("assistant", "only assistant messages call tools"),
    "tool_call_id": ("tool", "only tool messages answer a call"),
}
OLD_FORM = {"functions": "tools", "function_call": "tool_calls"}

Reasons = Iterator[str]


def method_of(row: Any) -> Method | None:
    """The method that a row was written for, as far as its keys tell."""
    if not isinstance(row, dict):
        return None
    if "messages" in row:
        return "supervised"
    return "dpo" if row.keys() & PREFERENCE_KEYS else None


def reasons_against(row: Any, method: Method) -> list[str]:
    """Every reason (the first 100) why a parsed line is no row for `method`; none for a good row."""
    if method_of(row) not in (method, None):
        return [f"a row for the method `{method_of(row)}` in a file for `{method}`"]
    form, meaning = (_conversation, _answers) if method == "supervised" else (_preference, _preferred)
    return _first(form(row)) or _first(meaning(row))


def _first(reasons: Reasons) -> list[str]:
    return list(islice(reasons, MAXIMUM_PROBLEMS))


# Rows


def _conversation(row: Any, where: str = "") -> Reasons:
    """The form of {messages, tools, parallel_tool_calls}."""
    if not isinstance(row, dict):
        yield f"expected an object with `messages`, found {kind(row)}"
        return
    yield from _unknown_keys(row, CONVERSATION_KEYS, "")
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        yield f"`{where}messages` must be a list of messages, found {_found(row, 'messages')}"
    else:
        for position, message in enumerate(messages):
            yield from _message(message, f"{where}messages[{position}]")
    if "tools" in row:
        yield from _tools(row["tools"], f"{where}tools")
    if not isinstance(row.get("parallel_tool_calls", True), bool):
        yield f"{where}parallel_tool_calls is {shown(row['parallel_tool_calls'])}; expected true or false"


def _answers(row: dict[str, Any]) -> Reasons:
    """What a well-formed conversation must also be for something to be learned from it."""
    messages = row["messages"]
    yield from _turns(messages, row)
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        yield "no assistant message: nothing to learn from"
    elif messages[-1]["role"] != "assistant":
        yield f"the last message is from {messages[-1]['role']}; expected assistant"
    elif all(message.get("weight", 1) == 0 for message in answers):
        yield "every assistant message has weight 0: nothing to learn from"


def _preference(row: Any) -> Reasons:
    """The form of {input, preferred_output, non_preferred_output}."""
    if not isinstance(row, dict):
        yield f"expected an object with `input`, found {kind(row)}"
        return
    yield from _unknown_keys(row, PREFERENCE_KEYS, "")
    if isinstance(row.get("input"), dict):
        yield from _conversation(row["input"], "input.")
        yield from _weights(row["input"].get("messages"), "input.messages")
    else:
        yield f"`input` must be an object with `messages`, found {_found(row, 'input')}"
    for key in ("preferred_output", "non_preferred_output"):
        yield from _output(row, key)


def _output(row: dict[str, Any], key: str) -> Reasons:
    output = row.get(key)
    if not isinstance(output, list) or not output:
        yield f"`{key}` must be a list of one assistant message, found {_found(row, key)}"
        return
    if len(output) > 1:
        yield f"`{key}` has {len(output)} messages; expected one"
    yield from _message(output[0], f"{key}[0]")
    yield from _weights(output[:1], key)
    if isinstance(output[0], dict) and output[0].get("role") != "assistant":
        yield f"{key}[0].role is {shown(output[0].get('role'))}; expected assistant"


def _preferred(row: dict[str, Any]) -> Reasons:
    messages = row["input"]["messages"]
    if messages[-1]["role"] == "assistant":
        yield "the last message of `input` is from assistant; the outputs go on from a user's or tool's message"
        return
    outputs = [row[key][0] for key in ("preferred_output", "non_preferred_output")]
    yield from _turns(messages, row["input"], "input.", ends=False)
    for key, output in zip(("preferred_output", "non_preferred_output"), outputs, strict=True):
        yield from _called(output, _function_names(row["input"]), f"{key}[0]")
    said, other = (
        (text_of(output.get("content")), [call["function"] for call in calls_of(output)]) for output in outputs
    )
    if said == other:
        yield "the preferred and the non-preferred output are the same"


def _weights(messages: Any, where: str) -> Reasons:
    for position, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict) and "weight" in message:
            yield f"{where}[{position}].weight: preferences have no weights"


# Messages


def _message(message: Any, where: str) -> Reasons:
    if not isinstance(message, dict):
        yield f"{where} must be an object, found {kind(message)}"
        return
    role = message.get("role")
    yield from _unknown_keys(message, MESSAGE_KEYS | KEYS_OF_ROLES.keys(), f"{where}: ")
    if role == "function":
        yield f'{where}.role is "function": use `tools`, whose results have the role tool'
    elif not isinstance(role, str) or role not in ROLES:
        yield f"{where}.role is {shown(role)}; expected one of {', '.join(ROLES)}"
    for key in sorted(KEYS_OF_ROLES.keys() & message.keys()):
        if role != KEYS_OF_ROLES[key][0]:
            yield f"{where}.{key}: {KEYS_OF_ROLES[key][1]}"
    yield from _content(message, role, f"{where}.content")
    if "name" in message:
        yield from _text(message["name"], f"{where}.name")
    if role == "tool":
        yield from _text(message.get("tool_call_id"), f"{where}.tool_call_id")
    if role == "assistant":
        yield from _weight(message, where)
        yield from _tool_calls(message, f"{where}.tool_calls")


def _content(message: dict[str, Any], role: Any, where: str) -> Reasons:
    content, calls = message.get("content"), "tool_calls" in message
    if content is None and calls:
        return
    may_be_empty = calls or role == "tool"  # a function may answer with nothing
    if not isinstance(content, list):
        yield from _text(content, where, may_be_empty=may_be_empty)
        return
    broken = False
    for position, part in enumerate(content):
        for reason in _part(part, f"{where}[{position}]"):
            broken = True
            yield reason
    if not broken:
        yield from _text(text_of(content), where, may_be_empty=may_be_empty)


def _part(part: Any, where: str) -> Reasons:
    if not isinstance(part, dict):
        yield f"{where} must be an object, found {kind(part)}"
    elif part.get("type") != "text":
        yield f"{where}.type is {shown(part.get('type'))}; only text can be trained on"
    else:
        yield from _unknown_keys(part, {"type", "text"}, f"{where}: ")
        yield from _text(part.get("text"), f"{where}.text", may_be_empty=True)


def _weight(message: dict[str, Any], where: str) -> Reasons:
    weight = message.get("weight", 1)
    if type(weight) is not int or weight not in (0, 1):  # in Python, True == 1
        yield f"{where}.weight is {shown(weight)}; expected 0 or 1"


def _text(value: Any, where: str, *, may_be_empty: bool = False) -> Reasons:
    if not isinstance(value, str):
        yield f"{where} must be a text, found {kind(value)}"
    elif not value.strip() and not may_be_empty:
        yield f"{where} is empty"
    else:
        yield from _whole_characters(value, where)


def _whole_characters(text: str, where: str) -> Reasons:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        yield f"{where} has half a surrogate pair at character {error.start + 1}"


# Tools and their calls


def _tools(tools: Any, where: str) -> Reasons:
    if not isinstance(tools, list):
        yield f"{where} must be a list of tools, found {kind(tools)}"
        return
    if len(tools) > MAXIMUM_TOOLS:
        yield f"{where} has {len(tools)} tools; at most {MAXIMUM_TOOLS}"
        return
    names = []
    for position, tool in enumerate(tools):
        found = list(_typed(tool, f"{where}[{position}]", {"type", "function"}, _function))
        yield from found
        if not found:
            names.append(tool["function"]["name"])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield f"{where} has {quoted(twice)} more than once"


def _typed(value: Any, where: str, keys: set[str], function: Callable[[Any, str], Reasons]) -> Reasons:
    """What tools and calls share: an object of the type "function" that holds one."""
    if not isinstance(value, dict):
        yield f"{where} must be an object, found {kind(value)}"
        return
    yield from _unknown_keys(value, keys, f"{where}: ")
    if value.get("type") != "function":
        yield f'{where}.type is {shown(value.get("type"))}; expected "function"'
    if isinstance(value.get("function"), dict):
        yield from _function_name(value["function"].get("name"), f"{where}.function.name")
        yield from function(value["function"], f"{where}.function")
    else:
        yield f"{where}.function must be an object, found {kind(value.get('function'))}"


def _function(function: dict[str, Any], where: str) -> Reasons:
    yield from _unknown_keys(function, {"name", "description", "parameters", "strict"}, f"{where}: ")
    if "description" in function:
        yield from _text(function["description"], f"{where}.description", may_be_empty=True)
    if "parameters" in function:
        if isinstance(function["parameters"], dict):
            yield from _whole_characters(_as_text(function["parameters"]), f"{where}.parameters")
        else:
            yield f"{where}.parameters must be an object (JSON Schema), found {kind(function['parameters'])}"
    if not isinstance(function.get("strict"), bool | None):
        yield f"{where}.strict is {shown(function['strict'])}; expected true or false"


def _tool_calls(message: dict[str, Any], where: str) -> Reasons:
    if "tool_calls" not in message:
        return
    calls = message["tool_calls"]
    if not isinstance(calls, list) or not calls:
        yield f"{where} must be a list of calls, found {kind(calls)}"
        return
    if len(calls) > MAXIMUM_TOOLS:
        yield f"{where} has {len(calls)} calls; at most {MAXIMUM_TOOLS}"
        return
    for position, call in enumerate(calls):
        if isinstance(call, dict):
            yield from _text(call.get("id"), f"{where}[{position}].id")
        yield from _typed(call, f"{where}[{position}]", {"id", "type", "function"}, _arguments)


def _arguments(function: dict[str, Any], where: str) -> Reasons:
    yield from _unknown_keys(function, {"name", "arguments"}, f"{where}: ")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        yield f"{where}.arguments must be a text that holds a JSON object, found {kind(arguments)}"
        return
    try:
        value = parse_json(arguments)
    except LineError as error:
        yield f"{where}.arguments: {error}"
        return
    if isinstance(value, dict):
        yield from _whole_characters(_as_text(value), f"{where}.arguments")
    else:
        yield f"{where}.arguments must hold a JSON object, found {kind(value)}"


def _function_name(name: Any, where: str) -> Reasons:
    if not isinstance(name, str) or not FUNCTION_NAME.fullmatch(name):
        yield f"{where} is {shown(name)}; expected 1 to 64 letters, digits, underscores or dashes"


def _turns(messages: list[dict[str, Any]], row: dict[str, Any], where: str = "", *, ends: bool = True) -> Reasons:
    """Calls and their answers: each answered before another turn, unless the row ends with it (`ends`)."""
    names = _function_names(row)
    open_calls: list[str] = []
    for position, message in enumerate(messages):
        here = f"{where}messages[{position}]"
        if message["role"] == "tool":
            if message["tool_call_id"] in open_calls:
                open_calls.remove(message["tool_call_id"])
            else:
                yield f"{here}.tool_call_id is {shown(message['tool_call_id'])}, which answers no open call"
            continue
        yield from _unanswered(open_calls, f" before {here}")
        yield from _called(message, names, here)
        open_calls = [call["id"] for call in calls_of(message)]
    if not ends or messages[-1]["role"] == "tool":
        yield from _unanswered(open_calls, "")


def _unanswered(open_calls: Sequence[str], before: str) -> Reasons:
    if open_calls:
        yield f"no tool message answers {quoted(list(open_calls))}{before}"


def _called(message: dict[str, Any], names: set[str], where: str) -> Reasons:
    calls = calls_of(message)
    identifiers = [call["id"] for call in calls]
    if len(set(identifiers)) < len(identifiers):
        yield f"{where}.tool_calls has the same id more than once"
    unknown = sorted({call["function"]["name"] for call in calls} - names)
    if unknown:
        yield f"{where} calls {quoted(unknown)}, not among `tools`"


def _function_names(row: dict[str, Any]) -> set[str]:
    return {tool["function"]["name"] for tool in row.get("tools", ())}


def calls_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    return message.get("tool_calls", [])


def text_of(content: str | list[dict[str, str]] | None) -> str:
    """The text of a message's content. Parts are joined as the engine joins them.

    Source: vLLM, renderers/chat_utils.py, `_parse_chat_message_content_parts`.
    """
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return content or ""


# Words for what was found


def _unknown_keys(value: dict[str, Any], known: set[str], where: str) -> Reasons:
    unknown = sorted(value.keys() - known - OLD_FORM.keys())
    if unknown:
        yield f"{where}unknown key {quoted(unknown)}"
    for key in sorted(value.keys() & OLD_FORM.keys()):
        yield f"{where}`{key}`: use `{OLD_FORM[key]}`"


def shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    if value in ([], ""):
        return "an empty one"
    number = "a number" if isinstance(value, int | float) else type(value).__name__
    return kinds.get(type(value), number)


def _found(row: dict[str, Any], key: str) -> str:
    return kind(row[key]) if key in row else "none"


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
