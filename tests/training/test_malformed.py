"""Whatever is wrong with a training file is told with its line and its reason, and what is right is read."""

import codecs
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_llm.errors import TrainingDataError
from local_llm.json_lines import LineError, parse_line
from training.examples.data import check_training_file, read_training_file
from training.examples.rules import method_of, reasons_against

from .malformed import (
    ANSWER,
    GOOD,
    GOOD_FILE,
    MALFORMED,
    PREFERENCES,
    USER,
    Malformed,
    call,
    calling,
    messages,
    preference,
    result,
    tool,
    with_tools,
)


def problems_of(path: Path, **options: Any) -> list[tuple[int, str]]:
    with pytest.raises(TrainingDataError) as caught:
        check_training_file(path, **options)
    return [(problem.line, problem.reason) for problem in caught.value.problems]


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.name)
def test_a_malformed_file_is_refused_with_its_line_and_reason(case: Malformed, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(case.data)
    found = problems_of(path, method=case.method)
    assert case.line in {line for line, _ in found}
    assert any(case.fragment in reason for line, reason in found if line == case.line), found
    if case.line > 1:
        assert {line for line, _ in found} == {case.line}, "good lines are not reported"
    with pytest.raises(TrainingDataError) as caught:
        read_training_file(path, method=case.method)
    assert [(problem.line, problem.reason) for problem in caught.value.problems] == found
    caught.value.message.encode()  # can be sent, whatever the file holds
    assert caught.value.param == "training_file"


def test_there_are_at_least_sixty_ways_to_be_wrong_and_each_has_a_name() -> None:
    assert len({case.name for case in MALFORMED}) == len(MALFORMED) >= 60


GOOD_FILES = {
    "as usual": GOOD_FILE.encode(),
    "byte order mark": codecs.BOM_UTF8 + GOOD_FILE.encode(),
    "Windows line ends": GOOD_FILE.replace("\n", "\r\n").encode(),
    "no final newline": GOOD_FILE.rstrip("\n").encode(),
    "blank lines": GOOD_FILE.replace("\n", "\n\n \n").encode(),
    "JSON in loose style": GOOD_FILE.replace('": ', '"  :\t').encode(),
}
GOOD_LINES = {
    "unicode line separators": '{"messages": [{"role": "user", "content": "a\u2028b\u2029c\x85d"}, '
    '{"role": "assistant", "content": "日本🙂"}]}',
    "escaped surrogate pair": messages(USER, {"role": "assistant", "content": "🙂"}),
    "parts": messages(
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": ""}]}, ANSWER
    ),
    "name, developer, weights": messages(
        {"role": "developer", "content": "x"}, {**USER, "name": "ana"}, {**ANSWER, "weight": 0}, USER, ANSWER
    ),
    "a call at the end": with_tools(USER, calling(call())),
    "calls and results": with_tools(
        USER,
        {**calling(call(), call("call_2")), "content": None},
        result("call_2"),
        result(content=""),
        {**ANSWER, "content": [{"type": "text", "text": "x"}]},
        parallel_tool_calls=True,
    ),
    "an id used again": with_tools(
        USER, calling(call()), result(), ANSWER, USER, calling(call()), result(), ANSWER
    ),
    "no tools": messages(USER, ANSWER, tools=[], parallel_tool_calls=False),
    "strict tools": messages(
        USER,
        ANSWER,
        tools=[
            tool(description="", parameters={"type": "object", "properties": {}}, strict=True),
            tool("f", strict=None),
        ],
    ),
    "functions": messages(
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
        {"role": "function", "name": "weather", "content": "21 degrees"},
        {**ANSWER, "function_call": None},
        functions=[{"name": "weather", "parameters": {}}],
    ),
}


@pytest.mark.parametrize("name", GOOD_FILES)
def test_a_good_file_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "good.jsonl"
    path.write_bytes(GOOD_FILES[name])
    summary, data = check_training_file(path), read_training_file(path)
    assert (summary.method, summary.examples, summary.bytes) == ("supervised", len(GOOD), len(GOOD_FILES[name]))
    assert (data.sha256, len(data.examples)) == (summary.sha256, summary.examples)
    assert [example.messages[0].content for example in data.examples] == [f"Question {n}?" for n in range(12)]


@pytest.mark.parametrize("name", GOOD_LINES)
def test_a_good_line_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "good.jsonl"
    path.write_text(f"{GOOD_LINES[name]}\n", encoding="utf-8")
    (example,) = read_training_file(path, minimum=1).examples
    assert example.messages[-1].trained


def test_the_old_form_of_calls_is_read_as_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text(GOOD_LINES["functions"])
    (example,) = read_training_file(path, minimum=1).examples
    assert example.tools == (
        {"type": "function", "function": {"name": "weather", "description": None, "parameters": {}}},
    )
    called, answered = example.messages[1:3]
    assert called.for_template() == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": {}}}],
    }
    assert (answered.role, answered.tool_call_id, answered.content) == ("tool", "call_1", "21 degrees")


def test_preferences_are_read(tmp_path: Path) -> None:
    asked = [{"role": "system", "content": "Be brief."}, USER, ANSWER, USER]
    row = preference(input={"messages": asked, "tools": [], "parallel_tool_calls": True})
    path = tmp_path / "dpo.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in [*PREFERENCES, row]))
    assert check_training_file(path).method == "dpo"
    data = read_training_file(path, method="dpo")
    assert data.method == "dpo"
    last = data.examples[-1]
    assert (last.line, last.preferred.content, last.rejected.content, last.tools) == (13, "Ho", "No", ())
    assert [message.role for message in last.messages] == ["system", "user", "assistant", "user"]
    assert not any(message.trained for message in last.messages), "what came before is only context"


def test_the_first_row_that_can_be_read_decides_the_method(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    lines = ["nonsense", json.dumps(PREFERENCES[0]), json.dumps(GOOD[0])]
    path.write_text("\n".join(lines))
    found = problems_of(path)
    assert [line for line, _ in found] == [1, 3]
    assert found[1][1] == "a row for the method `supervised` in a file for `dpo`"


def test_a_validation_file_may_have_one_example_and_is_named_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "validation.jsonl"
    path.write_text(json.dumps(GOOD[0]))
    assert check_training_file(path, minimum=1, param="validation_file").examples == 1
    path.write_text("")
    with pytest.raises(
        TrainingDataError, match=r"my\.jsonl has 1 problem: it has 0 examples; at least 1 are needed"
    ) as caught:
        check_training_file(path, minimum=1, param="validation_file", shown_as="my.jsonl")
    assert caught.value.param == "validation_file"


def test_memory_is_bounded_by_a_line(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    line = json.dumps({"messages": [USER, {"role": "assistant", "content": "x" * 50_000}]}) + "\n"
    path.write_text(line * 400)  # 20 MB
    tracemalloc.start()
    try:
        assert check_training_file(path).examples == 400
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_a_line_of_a_hundred_thousand_mistakes_is_told_in_a_hundred(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"messages": [{}] * 100_000}))
    assert len(problems_of(path)) == 100


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["user", "assistant", "tool"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=3)
            | st.sampled_from(
                [
                    "messages",
                    "role",
                    "content",
                    "tools",
                    "tool_calls",
                    "function",
                    "input",
                    "preferred_output",
                    "weight",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(json_values)
def test_no_value_breaks_the_rules(value: Any) -> None:
    for method in ("supervised", "dpo"):
        for reason in reasons_against(value, method):  # type: ignore[arg-type]
            reason.encode()
    assert method_of(value) in ("supervised", "dpo", None)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(line: bytes) -> None:
    try:
        parse_line(line)
    except LineError as error:
        str(error).encode()
