"""A training file is read whole or refused with everything that is wrong with it."""

import codecs
import hashlib
import json
from pathlib import Path

import pytest

from local_llm.errors import InvalidInputError, TrainingDataError
from local_llm.json_lines import MAXIMUM_LINE_BYTES
from training.examples.data import MAXIMUM_BLANK_LINES, MINIMUM_EXAMPLES, check_training_file, read_training_file
from training.examples.rules import MAXIMUM_PROBLEMS

from .conftest import conversation, good_lines, write_lines
from .malformed import ANSWER, LINES, USER


def test_every_malformed_line_is_reported_with_its_number_and_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    lines, reasons = zip(*((line, reason) for line, reason in LINES.values() if isinstance(line, str)), strict=True)
    lines, reasons = lines[:60], reasons[:60]  # fewer problems than end the reading
    good = json.dumps(good_lines(1)[0])
    path.write_text("".join(f"{good}\n{line}\n" for line in lines))
    with pytest.raises(TrainingDataError) as caught:
        read_training_file(path)
    found = {problem.line: str(problem) for problem in reversed(caught.value.problems)}
    for position, reason in enumerate(reasons):
        line = 2 * position + 2
        assert reason in found[line], (line, found.get(line))
        assert found[line].startswith(f"line {line}: ")
    assert not any(line % 2 for line in found), "good lines are not reported"


def test_several_problems_of_one_line_are_all_told(tmp_path: Path) -> None:
    line = {"messages": [{"role": "robot", "content": ""}, {"role": "user", "content": "x", "mood": 1}], "n": 1}
    path = write_lines(tmp_path / "bad.jsonl", [line])
    with pytest.raises(TrainingDataError) as caught:
        read_training_file(path)
    assert [problem.line for problem in caught.value.problems] == [1, 1, 1, 1]
    assert "4 problems" in caught.value.message


def test_bytes_that_are_not_utf8_are_located(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b"\n" + '{"messages": "Müll"}'.encode("latin-1"))
    with pytest.raises(TrainingDataError, match="line 2: not UTF-8: byte 16 is 0xfc"):
        read_training_file(path)


def test_a_byte_order_mark_and_blank_lines_are_harmless(tmp_path: Path) -> None:
    body = "\r\n\r\n".join(json.dumps(line) for line in good_lines())
    path = tmp_path / "windows.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + body.encode())
    data = read_training_file(path)
    assert len(data.examples) == len(good_lines())
    assert [example.line for example in data.examples[:3]] == [1, 3, 5]


def test_a_line_that_is_too_long_is_refused_and_the_rest_still_read(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    long = json.dumps(conversation("x" * (2 * MAXIMUM_LINE_BYTES), "y"))
    path.write_text(f"{long}\nnonsense\n")
    with pytest.raises(TrainingDataError) as caught:
        read_training_file(path)
    assert [problem.line for problem in caught.value.problems] == [1, 2]
    assert "longer than" in str(caught.value.problems[0])


def test_reading_stops_at_the_hundredth_problem(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bad.jsonl", [1] * 500)
    with pytest.raises(TrainingDataError) as caught:
        read_training_file(path)
    assert len(caught.value.problems) == MAXIMUM_PROBLEMS


@pytest.mark.parametrize("count", [0, MINIMUM_EXAMPLES - 1])
def test_too_few_examples_are_refused(tmp_path: Path, count: int) -> None:
    path = write_lines(tmp_path / "few.jsonl", good_lines(count))
    with pytest.raises(TrainingDataError, match=f"{count} examples; at least 10"):
        read_training_file(path)


def test_a_missing_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        read_training_file(tmp_path / "none.jsonl")


def test_the_hash_is_that_of_the_file_and_the_examples_are_in_order(training_file: Path) -> None:
    data = read_training_file(training_file)
    assert data.sha256 == hashlib.sha256(training_file.read_bytes()).hexdigest()
    assert data.bytes == training_file.stat().st_size
    assert [example.messages[0].content for example in data.examples] == [f"Question {n}?" for n in range(16)]


def test_developer_is_system_and_weight_zero_is_not_trained(tmp_path: Path) -> None:
    line = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            USER,
            {**ANSWER, "weight": 0},
            {**USER, "name": "ana"},
            {**ANSWER, "weight": 1},
        ]
    }
    data = read_training_file(write_lines(tmp_path / "ok.jsonl", [line] * 10))
    turns = data.examples[0].messages
    assert [(turn.role, turn.trained) for turn in turns] == [
        ("system", False), ("user", False), ("assistant", False), ("user", False), ("assistant", True),
    ]  # fmt: skip
    assert turns[3].for_template() == {"role": "user", "content": "Hi", "name": "ana"}


def test_a_file_of_nothing_but_line_ends_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "blank.jsonl"
    file.write_bytes(b"\n" * (MAXIMUM_BLANK_LINES + 10))
    with pytest.raises(TrainingDataError, match=r"line 100001: more than 100,000 blank lines"):
        check_training_file(file)
