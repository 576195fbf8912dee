"""Other people's data sets become training files, whole or not at all."""

import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from pyarrow import parquet

from local_llm.cli import dataset
from local_llm.errors import InvalidInputError, TrainingDataError
from training.examples import formats
from training.examples.data import check_training_file
from training.examples.importers import import_data_set
from training.examples.sources import ArrayReader

from .conftest import write_lines

WEATHER = {"name": "weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}


def imported(source: Path, **options: Any) -> list[dict[str, Any]]:
    output = source.with_name("output.jsonl")
    report = import_data_set(source, output, **options)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert report.rows == len(rows)
    assert check_training_file(output, minimum=1).examples == len(rows), "what was written is a training file"
    return rows


def imported_row(tmp_path: Path, row: dict[str, Any], **options: Any) -> dict[str, Any]:
    (made,) = imported(write_lines(tmp_path / "source.jsonl", [row]), **options)
    return made


def problems_of(source: Path, **options: Any) -> list[str]:
    output = source.with_name("output.jsonl")
    with pytest.raises(TrainingDataError) as caught:
        import_data_set(source, output, **options)
    assert sorted(path.name for path in source.parent.iterdir()) == [source.name], "nothing is written"
    return [str(problem) for problem in caught.value.problems]


def said(row: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(message["role"], message.get("content")) for message in row["messages"]]


# Formats


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "Hi ->", "completion": " Ho\n"}, [("user", "Hi ->"), ("assistant", "Ho")]),
        (
            {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Ho"}]},
            [("user", "Hi"), ("assistant", "Ho")],
        ),
        ({"instruction": "Add.", "input": "", "output": "2"}, [("user", "Add."), ("assistant", "2")]),
        ({"instruction": "Add.", "input": "1 + 1", "output": "2"}, [("user", "Add.\n\n1 + 1"), ("assistant", "2")]),
        (
            {
                "instruction": "And now?",
                "input": None,
                "output": "3",
                "system": "Be brief.",
                "history": [["Add 1 and 1.", "2"]],
            },
            [
                ("system", "Be brief."),
                ("user", "Add 1 and 1."),
                ("assistant", "2"),
                ("user", "And now?"),
                ("assistant", "3"),
            ],
        ),
        (
            {
                "conversations": [
                    {"from": "system", "value": "Be brief."},
                    {"from": "human", "value": "Hi"},
                    {"from": "gpt", "value": "Ho"},
                ]
            },
            [("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho")],
        ),
        (
            {
                "system": "Be brief.",
                "conversations": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}],
            },
            [("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho")],
        ),
        (
            {"messages": [{"role": "user", "content": "Hi", "name": None}, {"role": "assistant", "content": "Ho"}]},
            [("user", "Hi"), ("assistant", "Ho")],
        ),
    ],
)
def test_a_row_of_each_format_becomes_a_conversation(tmp_path: Path, row: dict[str, Any], expected: Any) -> None:
    assert said(imported_row(tmp_path, row)) == expected


def test_calls_of_functions_in_sharegpt_become_calls_of_tools(tmp_path: Path) -> None:
    row = {
        "tools": json.dumps([WEATHER]),
        "conversations": [
            {"from": "human", "value": "Warm?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Köln"}}'},
            {"from": "observation", "value": "21"},
            {"from": "gpt", "value": "Yes."},
        ],
    }
    made = imported_row(tmp_path, row)
    assert made["tools"] == [{"type": "function", "function": WEATHER}]
    called, answer = made["messages"][1:3]
    (call,) = called["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Köln"}'}
    assert (answer["role"], answer["tool_call_id"], answer["content"]) == ("tool", call["id"], "21")


def test_the_old_form_of_functions_and_arguments_as_objects_are_mended(tmp_path: Path) -> None:
    old = {
        "functions": [WEATHER],
        "messages": [
            {"role": "user", "content": "Warm?"},
            {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
        ],
    }
    assert imported_row(tmp_path, old)["tools"][0]["function"]["name"] == "weather"
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    new = {
        "tools": [WEATHER],
        "messages": [{"role": "user", "content": "Warm?"}, {"role": "assistant", "tool_calls": [call]}],
    }
    made = imported_row(tmp_path, new, force=True)
    assert made["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"city": "Rome"}'


def test_a_system_message_opens_rows_that_have_none(tmp_path: Path) -> None:
    own = {"instruction": "Add.", "output": "2", "system": "Own."}
    source = write_lines(tmp_path / "source.jsonl", [own, {"instruction": "Add.", "output": "2"}])
    assert [said(row)[0] for row in imported(source, system="Given.")] == [("system", "Own."), ("system", "Given.")]


def test_columns_without_a_use_are_named(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "conversations": [{"from": "human", "value": "Hi", "mood": 1}, {"from": "gpt", "value": "Ho"}]}
    ]
    report = import_data_set(write_lines(tmp_path / "source.jsonl", rows), tmp_path / "output.jsonl")
    assert (report.format, report.left_out) == ("sharegpt", ("conversations[].mood", "id"))


def test_a_format_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source.jsonl", [{"question": "Hi", "answer": "Ho"}])
    with pytest.raises(InvalidInputError, match="`answer`, `question`") as caught:
        import_data_set(source, tmp_path / "output.jsonl")
    assert "--format" in (caught.value.hint or "")
    assert not (tmp_path / "output.jsonl").exists()


# Files


def test_a_json_array_is_read_as_a_stream(tmp_path: Path) -> None:
    rows = [{"instruction": f"Question {n}", "output": "é🙂 " * 500} for n in range(2000)]
    source = tmp_path / "source.json"
    source.write_text(json.dumps(rows, ensure_ascii=False, indent=2), encoding="utf-8-sig")  # 11 MB
    tracemalloc.start()
    try:
        report = import_data_set(source, tmp_path / "output.jsonl")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (report.rows, report.source) == (2000, "json")
    assert peak < 4_000_000
    made = [json.loads(line) for line in (tmp_path / "output.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["messages"][0]["content"] for row in made] == [row["instruction"] for row in rows]


@pytest.mark.parametrize("size", range(1, 60))
def test_an_array_is_read_the_same_wherever_its_pieces_end(size: int) -> None:
    text = ' [ {"prompt": "é🙂\\n", "n": 1.25e3} ,{"prompt":"]", "completion":"\\u00e9"}, -12.5\n]\n'
    reader = ArrayReader(io.BytesIO(text.encode("utf-8-sig")), chunk_bytes=size)
    assert list(reader.elements()) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "it has no rows"),
        ('[{"prompt": "a", "completion": "b"}', "row 2: not JSON: expected ], found the end of the file"),
        ('[{"prompt": "a", "completion": "b"} {}]', "row 2: not JSON: expected ], found {"),
        ('[{"prompt": "a", "completion": "b"},]', "row 2: not JSON: Expecting value at character 1"),
        ('[{"prompt": "a", "completion": "b"}] x', "row 2: not JSON: something follows the array's end"),
        ('[{"prompt": "a", "completion": "b"}, 12]', "row 2: expected an object, found a number"),
        (
            '[{"prompt": "a", "completion": "b"}, {"prompt": nope}]',
            "row 2: not JSON: Expecting value at character 12",
        ),
        ('[{"a": 1, "a": 2}]', "row 1: `a` given more than once"),
        ("[" * 100_000, "row 1: not JSON: nested too deeply"),
        ("[NaN]", "row 1: not JSON: NaN"),
    ],
)
def test_a_broken_array_is_told_with_its_row(tmp_path: Path, text: str, problem: str) -> None:
    source = tmp_path / "source.json"
    source.write_text(text)
    assert problems_of(source) == [problem]


def test_parquet_is_read_with_its_nested_columns(tmp_path: Path) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    rows = [
        {
            "messages": [{"role": "user", "content": f"Question {n}"}, {"role": "assistant", "content": "Ho"}],
            "tools": None,
        }
        for n in range(1000)
    ]
    rows.append(
        {
            "messages": [
                {"role": "user", "content": "Warm?"},
                {"role": "assistant", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "a", "content": "21"},
                {"role": "assistant", "content": "Yes."},
            ],
            "tools": [{"type": "function", "function": WEATHER | {"parameters": {"type": "object"}}}],
        }
    )
    source = tmp_path / "source.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), source)
    made = imported(source)
    assert len(made) == 1001
    assert made[0] == {"messages": rows[0]["messages"]}
    assert made[-1]["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"city": "Rome"}'


def test_values_that_json_has_no_words_for_are_told(tmp_path: Path) -> None:
    source = tmp_path / "source.parquet"
    rows = [{"prompt": b"bytes", "completion": "b"}, {"prompt": None, "completion": "b"}]
    parquet.write_table(pa.Table.from_pylist(rows), source)
    assert problems_of(source) == [
        "row 1: prompt must be a text, found bytes",
        "row 2: prompt must be a text, found null",
    ]


def test_a_broken_parquet_file_is_one_message(tmp_path: Path) -> None:
    source = tmp_path / "source.parquet"
    parquet.write_table(pa.Table.from_pylist([{"prompt": "a" * 10_000, "completion": "b"}]), source)
    source.write_bytes(source.read_bytes()[:100])
    with pytest.raises(InvalidInputError, match="broken Parquet file"):
        import_data_set(source, tmp_path / "output.jsonl")
    assert not (tmp_path / "output.jsonl").exists()


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(b"\x1f\x8b" + bytes(20))
    for name, reason in (
        ("a.gz", "a gzip archive; unpack it"),
        ("none", "does not exist"),
        (".", "does not exist"),
    ):
        with pytest.raises(InvalidInputError, match=reason):
            import_data_set(tmp_path / name, tmp_path / "output.jsonl")


# Mistakes


def test_every_bad_row_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "output": "2"},
        {"instruction": "Add.", "output": ""},
        {"instruction": 3, "output": "2"},
        [1],
        {"instruction": "Add.", "output": "2", "history": ["x"]},
    ]
    source = write_lines(tmp_path / "source.jsonl", rows)
    with source.open("a") as handle:
        handle.write('\n{"instruction"\n')
    assert problems_of(source) == [
        "line 2: output is empty",
        "line 3: instruction must be a text, found a number",
        "line 4: expected an object, found a list",
        'line 5: history must be pairs of question and answer, found "x"',
        "line 7: not JSON: Expecting ':' delimiter at character 16",
    ]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([{"from": "human", "value": "Hi"}], "no assistant message"),
        ([{"from": "alien", "value": "Hi"}], 'conversations[0] is from "alien"; expected one of human'),
        ([{"from": "tool", "value": "21"}], "conversations[0] is from tool, but no function was called before"),
        ([{"from": "human", "value": None}, {"from": "gpt", "value": "Ho"}], "messages[0].content must be a text"),
        (
            [{"from": "human", "value": "?"}, {"from": "function_call", "value": "x"}],
            "conversations[1].value: not JSON",
        ),
        (["Hi"], "conversations[0] must be an object, found a text"),
        ("Hi", "conversations must be a list of turns, found a text"),
    ],
)
def test_a_bad_conversation_is_told_with_its_turn(tmp_path: Path, turns: Any, reason: str) -> None:
    (problem,) = problems_of(write_lines(tmp_path / "source.jsonl", [{"conversations": turns}]))
    assert reason in problem


def test_reading_stops_at_the_hundredth_problem(tmp_path: Path) -> None:
    assert (
        len(problems_of(write_lines(tmp_path / "source.jsonl", [{"instruction": "", "output": "x"}] * 500))) == 100
    )


def test_an_output_that_exists_is_only_replaced_by_force(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source.jsonl", [{"instruction": "Add.", "output": "2"}])
    output = tmp_path / "output.jsonl"
    output.write_text("mine")
    with pytest.raises(InvalidInputError, match="exists") as caught:
        import_data_set(source, output)
    assert "--force" in (caught.value.hint or "")
    assert output.read_text() == "mine"
    bad = write_lines(tmp_path / "bad.jsonl", [{"instruction": "Add.", "output": ""}])
    with pytest.raises(TrainingDataError):
        import_data_set(bad, output, force=True)
    assert output.read_text() == "mine", "a bad source leaves what was there"
    import_data_set(source, output, force=True)
    assert check_training_file(output, minimum=1).examples == 1
    with pytest.raises(InvalidInputError, match="a folder that exists"):
        import_data_set(source, tmp_path / "nowhere" / "output.jsonl")


# The command


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "local_llm", "train", "dataset", "import", *arguments]
    return subprocess.run(line, env=os.environ, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_writes_a_training_file_and_says_what_it_did(tmp_path: Path) -> None:
    rows = [{"id": n, "instruction": f"Question {n}", "output": "Aye."} for n in range(12)]
    source, output = write_lines(tmp_path / "source.jsonl", rows), tmp_path / "output.jsonl"
    done = run(str(source), str(output), "--system", "Be brief.", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "output": str(output),
        "rows": 12,
        "format": "alpaca",
        "source": "jsonl",
        "left_out": ["id"],
    }
    assert "left out: id" in done.stderr
    assert check_training_file(output).examples == 12


def test_the_command_tells_every_bad_row(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": ""}] * 50
    source, output = write_lines(tmp_path / "source.jsonl", rows), tmp_path / "output.jsonl"
    done = run(str(source), str(output))
    assert (done.returncode, done.stdout) == (1, "")
    assert [line for line in done.stderr.splitlines() if line.startswith("line ")] == [
        f"line {number}: completion is empty" for number in range(1, 51)
    ]
    assert "nothing was written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_the_command_knows_the_formats_of_the_importers() -> None:
    assert get_args(dataset.Format) == get_args(formats.Format)
    assert set(get_args(formats.Format)) == {"auto", *formats.CONVERTERS} == {"auto", *formats.COLUMNS}
