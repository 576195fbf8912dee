"""Training files with one thing wrong each, and where and how that is told. The API's tests reuse them."""

import codecs
import gzip
import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any, Literal

from local_llm.json_lines import MAXIMUM_LINE_BYTES

from .conftest import conversation, good_lines

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Ho"}
BAD_LINE = 4


@dataclass(frozen=True)
class Malformed:
    name: str
    data: bytes
    line: int  # 0: the whole file
    fragment: str
    method: Literal["supervised", "dpo"] = "supervised"


def messages(*items: Any, **row: Any) -> str:
    return json.dumps({"messages": list(items), **row})


def tool(name: Any = "weather", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def call(identifier: Any = "call_1", name: Any = "weather", arguments: Any = "{}") -> dict[str, Any]:
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": list(calls)}


def result(identifier: str = "call_1", content: Any = "21 degrees") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identifier, "content": content}


def with_tools(*items: Any, tools: Any = None, **row: Any) -> str:
    return messages(*items, tools=[tool()] if tools is None else tools, **row)


def preference(preferred: Any = ANSWER, rejected: Any = None, asked: Any = None, **changes: Any) -> dict[str, Any]:
    return {
        "input": {"messages": [USER] if asked is None else asked},
        "preferred_output": [preferred],
        "non_preferred_output": [{"role": "assistant", "content": "No"} if rejected is None else rejected],
        **changes,
    }


def among(good: list[Any], line: str | bytes) -> bytes:
    """A file whose line BAD_LINE is the one given, and all others are right."""
    lines: list[bytes] = [json.dumps(row).encode() for row in good]
    lines.insert(BAD_LINE - 1, line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line)
    return b"\n".join(lines) + b"\n"


def nested(depth: int, inner: str = "1") -> str:
    return '{"a":' * depth + inner + "}" * depth


def archive(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("training.jsonl", data)
    return buffer.getvalue()


GOOD = good_lines(12)
GOOD_FILE = "".join(json.dumps(row) + "\n" for row in GOOD)
PREFERENCES = [preference({"role": "assistant", "content": f"Yes {number}"}) for number in range(12)]

# One bad line among good ones.
LINES: dict[str, tuple[str | bytes, str]] = {
    # What is no JSON at all
    "truncated JSON": ('{"messages": [', "not JSON"),
    "a bare word": ("hello", "not JSON: Expecting value at character 1"),
    "single quotes": ("{'messages': []}", "not JSON"),
    "a comma too many": ('{"messages": [],}', "not JSON"),
    "two objects on a line": ("{} {}", "not JSON: Extra data"),
    "a raw line break in a text": ('{"messages": "a\tb"}', "not JSON: Invalid control character"),
    "thousands of brackets": ("[" * 100_000, "nested too deeply"),
    "a hundred levels": (nested(100), "nested too deeply"),
    "NaN": ('{"messages": [{"role": "user", "content": NaN}]}', "not JSON: NaN"),
    "Infinity": ('{"messages": -Infinity}', "not JSON: -Infinity"),
    "a float beyond all bounds": ('{"messages": 1e999}', "the number 1e999 is too large"),
    "an integer of 5000 digits": ('{"messages": ' + "9" * 5000 + "}", "too many digits"),
    "Latin-1": ('{"messages": "Müll"}'.encode("latin-1"), "not UTF-8: byte 16 is 0xfc"),
    "cut inside a character": ('{"messages": "é'.encode()[:-1], "not UTF-8"),
    "surrogates encoded as bytes": (b'{"messages": "\xed\xa0\x80"}', "not UTF-8"),
    "binary": (bytes(range(1, 10)) + bytes(range(11, 256)), "not UTF-8"),
    "null bytes": (b"\0" * 64, "not JSON"),
    "a byte order mark in the middle": (codecs.BOM_UTF8 + json.dumps(GOOD[0]).encode(), "byte order mark"),
    "a huge line": (json.dumps(conversation("x" * MAXIMUM_LINE_BYTES, "y")), "longer than 4,194,304 bytes"),
    "a key given twice": ('{"messages": [], "messages": []}', "`messages` given more than once"),
    "a message's key given twice": (
        '{"messages": [{"role": "user", "role": "user", "content": "x"}]}',
        "`role` given more than once",
    ),
    # What is no row
    "a text": ('"text"', "expected an object with `messages`, found a text"),
    "a number": ("3", "expected an object with `messages`, found a number"),
    "null": ("null", "expected an object with `messages`, found null"),
    "a list": ("[1, 2]", "expected an object with `messages`, found a list"),
    "no messages": ("{}", "`messages` must be a list of messages, found none"),
    "empty messages": ('{"messages": []}', "`messages` must be a list of messages, found an empty one"),
    "messages as a text": ('{"messages": "Hi"}', "`messages` must be a list of messages, found a text"),
    "an unknown key": (messages(USER, ANSWER, mood=1), "unknown key `mood`"),
    "an unknown key that cannot be printed": (
        '{"messages": [], "\\ud800\\u001b[31m": 1}',
        "unknown key `\\ud800\\u001b[31m`",
    ),
    # Messages
    "a message as a text": (messages("Hi", ANSWER), "messages[0] must be an object, found a text"),
    "an unknown role": (messages({"role": "robot", "content": "x"}, ANSWER), 'messages[0].role is "robot"'),
    "no role": (messages({"content": "x"}, ANSWER), "messages[0].role is null"),
    "a role in capitals": (messages({"role": "User", "content": "x"}, ANSWER), 'messages[0].role is "User"'),
    "a role as a list": (messages({"role": [], "content": "x"}, ANSWER), "messages[0].role is []"),
    "blank content": (messages({"role": "user", "content": " \n"}, ANSWER), "messages[0].content is empty"),
    "empty content": (messages(USER, {"role": "assistant", "content": ""}), "messages[1].content is empty"),
    "null content": (messages(USER, {"role": "assistant", "content": None}), "messages[1].content must be a text"),
    "no content": (messages({"role": "user"}, ANSWER), "messages[0].content must be a text, found null"),
    "content as a number": (messages({"role": "user", "content": 7}, ANSWER), "must be a text, found a number"),
    "an unknown message key": (messages({**USER, "colour": 1}, ANSWER), "messages[0]: unknown key `colour`"),
    "a refusal": (messages(USER, {**ANSWER, "refusal": "No"}), "messages[1]: unknown key `refusal`"),
    "a name as a number": (messages({**USER, "name": 3}, ANSWER), "messages[0].name must be a text"),
    "half a surrogate pair": (
        '{"messages": [{"role": "user", "content": "a\\ud800"}]}',
        "messages[0].content has half a surrogate pair at character 2",
    ),
    "an image": (
        messages({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER),
        'messages[0].content[0].type is "image_url"; only text can be trained on',
    ),
    "audio": (
        messages({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, ANSWER),
        "only text can be trained on",
    ),
    "a part without its text": (
        messages({"role": "user", "content": [{"type": "text"}]}, ANSWER),
        "messages[0].content[0].text must be a text, found null",
    ),
    "a part as a text": (
        messages({"role": "user", "content": ["Hi"]}, ANSWER),
        "messages[0].content[0] must be an object",
    ),
    "parts without any text": (
        messages({"role": "user", "content": [{"type": "text", "text": " "}]}, ANSWER),
        "messages[0].content is empty",
    ),
    "no parts": (messages({"role": "user", "content": []}, ANSWER), "messages[0].content is empty"),
    # Weights
    "a weight of 2": (messages(USER, {**ANSWER, "weight": 2}), "messages[1].weight is 2; expected 0 or 1"),
    "half a weight": (messages(USER, {**ANSWER, "weight": 0.5}), "messages[1].weight is 0.5"),
    "a weight of 1.0": (messages(USER, {**ANSWER, "weight": 1.0}), "messages[1].weight is 1.0"),
    "a weight of true": (messages(USER, {**ANSWER, "weight": True}), "messages[1].weight is true"),
    "a weight as a text": (messages(USER, {**ANSWER, "weight": "1"}), 'messages[1].weight is "1"'),
    "a user's weight": (messages({**USER, "weight": 1}, ANSWER), "only assistant messages have a weight"),
    "only weights of 0": (messages(USER, {**ANSWER, "weight": 0}), "every assistant message has weight 0"),
    # Conversations
    "no answer": (messages(USER), "no assistant message"),
    "a question at the end": (messages(USER, ANSWER, USER), "the last message is from user; expected assistant"),
    # Tools
    "tools as an object": (messages(USER, ANSWER, tools={}), "tools must be a list of tools, found an object"),
    "a tool as a text": (with_tools(USER, ANSWER, tools=["weather"]), "tools[0] must be an object"),
    "a tool of another type": (
        with_tools(USER, ANSWER, tools=[{**tool(), "type": "retrieval"}]),
        'tools[0].type is "retrieval"; expected "function"',
    ),
    "a tool without a function": (
        with_tools(USER, ANSWER, tools=[{"type": "function"}]),
        "tools[0].function must be an object, found null",
    ),
    "a function's name with a blank": (
        with_tools(USER, ANSWER, tools=[tool("get weather")]),
        'tools[0].function.name is "get weather"',
    ),
    "a function's name of 65 letters": (with_tools(USER, ANSWER, tools=[tool("a" * 65)]), "1 to 64 letters"),
    "a function's name with a line break": (with_tools(USER, ANSWER, tools=[tool("weather\n")]), "1 to 64 letters"),
    "an unknown key of a function": (
        with_tools(USER, ANSWER, tools=[tool(returns="x")]),
        "tools[0].function: unknown key `returns`",
    ),
    "parameters as a text": (
        with_tools(USER, ANSWER, tools=[tool(parameters="{}")]),
        "tools[0].function.parameters must be an object (JSON Schema), found a text",
    ),
    "strict as a text": (with_tools(USER, ANSWER, tools=[tool(strict="yes")]), 'function.strict is "yes"'),
    "a function twice": (with_tools(USER, ANSWER, tools=[tool(), tool()]), "tools has `weather` more than once"),
    "129 tools": (
        with_tools(USER, ANSWER, tools=[tool(f"f{number}") for number in range(129)]),
        "tools has 129 tools; at most 128",
    ),
    "parallel_tool_calls as a text": (
        with_tools(USER, ANSWER, parallel_tool_calls="no"),
        'parallel_tool_calls is "no"; expected true or false',
    ),
    # Calls of tools
    "calls as an object": (
        with_tools(USER, {"role": "assistant", "tool_calls": {}}),
        "messages[1].tool_calls must be a list of calls, found an object",
    ),
    "no calls": (with_tools(USER, calling()), "messages[1].tool_calls must be a list of calls"),
    "a call without an id": (
        with_tools(USER, calling({"type": "function", "function": {"name": "weather", "arguments": "{}"}})),
        "messages[1].tool_calls[0].id must be a text, found null",
    ),
    "a call of another type": (
        with_tools(USER, calling({**call(), "type": "code"})),
        'messages[1].tool_calls[0].type is "code"',
    ),
    "arguments as an object": (
        with_tools(USER, calling(call(arguments={"city": "Rome"}))),
        "arguments must be a text that holds a JSON object, found an object",
    ),
    "arguments that are no JSON": (
        with_tools(USER, calling(call(arguments="{city: Rome}"))),
        "messages[1].tool_calls[0].function.arguments: not JSON",
    ),
    "arguments that hold a list": (with_tools(USER, calling(call(arguments="[1]"))), "found a list"),
    "arguments with a key twice": (
        with_tools(USER, calling(call(arguments='{"a": 1, "a": 2}'))),
        "`a` given more than once",
    ),
    "arguments with half a surrogate pair": (
        with_tools(USER, calling(call(arguments='{"a": "\\ud800"}'))),
        "function.arguments has half a surrogate pair",
    ),
    "a call of a function that is no tool": (
        with_tools(USER, calling(call(name="time"))),
        "messages[1] calls `time`, not among `tools`",
    ),
    "a call without any tools": (messages(USER, calling(call())), "calls `weather`, not among `tools`"),
    "two calls of one id": (with_tools(USER, calling(call(), call())), "tool_calls has the same id more than once"),
    "a user's call": (with_tools({**USER, "tool_calls": [call()]}, ANSWER), "only assistant messages call tools"),
    "a user's tool_call_id": (
        with_tools({**USER, "tool_call_id": "x"}, ANSWER),
        "only tool messages answer a call",
    ),
    "a call that nobody answers": (
        with_tools(USER, calling(call()), USER, ANSWER),
        "no tool message answers `call_1` before messages[2]",
    ),
    "one of two calls unanswered": (
        with_tools(USER, calling(call(), call("call_2")), result(), ANSWER),
        "no tool message answers `call_2` before messages[3]",
    ),
    "a result of no call": (
        with_tools(USER, result(), ANSWER),
        'messages[1].tool_call_id is "call_1", which answers no open call',
    ),
    "a result of another call": (
        with_tools(USER, calling(call()), result("call_9"), ANSWER),
        'messages[2].tool_call_id is "call_9"',
    ),
    "a call answered twice": (
        with_tools(USER, calling(call()), result(), result(), ANSWER),
        "messages[3].tool_call_id",
    ),
    "a result without its id": (
        with_tools(USER, calling(call()), {"role": "tool", "content": "x"}, ANSWER),
        "messages[2].tool_call_id must be a text, found null",
    ),
    "a result at the end": (with_tools(USER, calling(call()), result()), "the last message is from tool"),
    # The old form
    "functions beside tools": (with_tools(USER, ANSWER, functions=[]), "`functions`: use `tools`"),
    "functions as an object": (messages(USER, ANSWER, functions={}), "`functions`: use `tools`"),
    "a result of no function call": (
        messages(USER, {"role": "function", "name": "weather", "content": "x"}, ANSWER),
        'messages[1].role is "function": use `tools`',
    ),
    "a function call of something else": (
        messages(USER, {"role": "assistant", "function_call": "weather"}, functions=[{"name": "weather"}]),
        "messages[1].tool_calls[0].function must be an object, found a text",
    ),
    # The other method
    "a preference among conversations": (
        json.dumps(preference()),
        "a row for the method `dpo` in a file for `supervised`",
    ),
}

# The same for preferences.
PREFERENCE_LINES: dict[str, tuple[str, str]] = {
    "a conversation among preferences": (
        json.dumps(GOOD[0]),
        "a row for the method `supervised` in a file for `dpo`",
    ),
    "no input": (
        json.dumps({"preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}),
        "`input` must be an object with `messages`, found none",
    ),
    "input as a list": (json.dumps(preference(input=[USER])), "`input` must be an object with `messages`"),
    "input without messages": (json.dumps(preference(input={})), "`input.messages` must be a list of messages"),
    "no preferred output": (
        json.dumps({"input": {"messages": [USER]}, "non_preferred_output": [ANSWER]}),
        "`preferred_output` must be a list of one assistant message, found none",
    ),
    "an output as an object": (
        json.dumps(preference(non_preferred_output=ANSWER)),
        "`non_preferred_output` must be a list of one assistant message, found an object",
    ),
    "an empty output": (json.dumps(preference(preferred_output=[])), "found an empty one"),
    "two messages in an output": (
        json.dumps(preference(preferred_output=[ANSWER, ANSWER])),
        "`preferred_output` has 2 messages; expected one",
    ),
    "a user's output": (
        json.dumps(preference(USER)),
        'preferred_output[0].role is "user"; expected assistant',
    ),
    "an output without text": (
        json.dumps(preference(rejected={"role": "assistant", "content": " "})),
        "non_preferred_output[0].content is empty",
    ),
    "the same outputs": (
        json.dumps(preference(ANSWER, ANSWER)),
        "the preferred and the non-preferred output are the same",
    ),
    "the same outputs in parts": (
        json.dumps(preference(ANSWER, {"role": "assistant", "content": [{"type": "text", "text": "Ho"}]})),
        "are the same",
    ),
    "an answer before the answer": (
        json.dumps(preference(asked=[USER, ANSWER])),
        "the last message of `input` is from assistant",
    ),
    "a weight in an output": (json.dumps(preference({**ANSWER, "weight": 1})), "preferences have no weights"),
    "a weight in the input": (
        json.dumps(preference(asked=[USER, {**ANSWER, "weight": 0}, USER])),
        "input.messages[1].weight: preferences have no weights",
    ),
    "an unknown key beside the outputs": (json.dumps(preference(score=1)), "unknown key `score`"),
    "a wrong role in the input": (
        json.dumps(preference(asked=[{"role": "robot", "content": "x"}])),
        'input.messages[0].role is "robot"',
    ),
    "a preferred call of no tool": (
        json.dumps(preference(calling(call()))),
        "preferred_output[0] calls `weather`, not among `tools`",
    ),
    "a call in the input unanswered": (
        json.dumps(preference(input={"messages": [USER, calling(call(), call("b")), result()], "tools": [tool()]})),
        "no tool message answers `b`",
    ),
}

# Files that are wrong as a whole, or as what they are.
FILES = [
    Malformed("0 bytes", b"", 0, "it has 0 examples; at least 10 are needed"),
    Malformed("only blank lines", b"\n \r\n\n", 0, "it has 0 examples; at least 10 are needed"),
    Malformed("only a byte order mark", codecs.BOM_UTF8, 0, "it has 0 examples; at least 10 are needed"),
    Malformed(
        "9 examples",
        "".join(json.dumps(row) + "\n" for row in GOOD[:9]).encode(),
        0,
        "it has 9 examples; at least 10 are needed",
    ),
    Malformed("UTF-16 with its mark", GOOD_FILE.encode("utf-16"), 1, "UTF-16 text; save it as UTF-8"),
    Malformed("UTF-16 big endian", codecs.BOM_UTF16_BE + GOOD_FILE.encode("utf-16-be"), 1, "UTF-16 text"),
    Malformed("UTF-16 without a mark", GOOD_FILE.encode("utf-16-le"), 1, "not JSON"),
    Malformed("a zip archive", archive(GOOD_FILE.encode()), 1, "a zip archive; unpack it"),
    Malformed("a gzip archive", gzip.compress(GOOD_FILE.encode(), mtime=0), 1, "a gzip archive; unpack it"),
    Malformed("a Parquet file", b"PAR1\x15\x04" + bytes(64) + b"PAR1", 1, "a Parquet file"),
    Malformed("a JSON array on one line", json.dumps(GOOD).encode(), 1, "expected an object with `messages`"),
    Malformed("a JSON array over lines", json.dumps(GOOD, indent=1).encode(), 1, "a JSON array"),
    Malformed("an object over lines", json.dumps(GOOD[0], indent=1).encode(), 1, "goes over several lines"),
    Malformed("CSV", b'prompt,completion\n"Hi","Ho"\n', 1, "not JSON: Expecting value at character 1"),
    Malformed("a web page", b"<!doctype html>\n<title>404</title>\n", 1, "not JSON"),
    Malformed("Macintosh line ends", GOOD_FILE.replace("\n", "\r").encode(), 1, "not JSON: Extra data"),
    Malformed("a cut last line", GOOD_FILE.encode()[:-20], 12, "not JSON"),
    Malformed("prompts and completions", b'{"prompt": "Hi", "completion": "Ho"}\n', 1, "unknown key `completion`"),
    Malformed(
        "9 preferences", b"\n".join(json.dumps(row).encode() for row in PREFERENCES[:9]), 0, "9 examples", "dpo"
    ),
]

MALFORMED = [
    *FILES,
    *(Malformed(name, among(GOOD, line), BAD_LINE, fragment) for name, (line, fragment) in LINES.items()),
    *(
        Malformed(name, among(PREFERENCES, line), BAD_LINE, fragment, "dpo")
        for name, (line, fragment) in PREFERENCE_LINES.items()
    ),
]
