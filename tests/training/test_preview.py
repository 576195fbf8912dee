"""What preview shows is what is trained, in words, counts and colours."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local_llm.models import Model
from local_llm.settings import Settings
from training.examples.labels import Row, build_preference_rows, build_rows
from training.examples.preview import describe, draw

from .conftest import conversation, good_lines, write_lines
from .malformed import PREFERENCES
from .test_labels import TURNS, assistant, example, preference, user

GREEN, RED, DIM = "\x1b[1;32m", "\x1b[1;31m", "\x1b[2m"


def drawn(tokenizer: Any, rows: list[Any], count: int = 9) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=500, highlight=False)
    draw(tokenizer, rows, count, console)
    return console.file.getvalue()


def test_preview_counts_what_is_trained(tokenizer: Any) -> None:
    rows = build_rows(tokenizer, [example(*TURNS), example(*TURNS, line=2)], max_tokens=999, shown_as="f")
    shown = describe(tokenizer, rows, 1)
    assert shown["examples"] == 2
    assert shown["trained_tokens"] == 2 * rows[0].trained_tokens
    assert "".join(piece["text"] for piece in shown["rows"][0]["pieces"]) == tokenizer.decode(rows[0].input_ids)


def test_what_is_cut_is_counted_by_row_and_in_all(tokenizer: Any) -> None:
    examples = [example(user("a"), assistant("word " * count), line=count) for count in (5, 100, 200)]
    rows = build_rows(tokenizer, examples, max_tokens=60, shown_as="f", over_long="cut")
    shown = describe(tokenizer, rows, 2)
    assert [row["cut_tokens"] for row in shown["rows"]] == [0, rows[1].cut_tokens]
    assert (shown["cut_rows"], shown["cut_tokens"]) == (2, rows[1].cut_tokens + rows[2].cut_tokens)
    assert shown["longest_tokens"] == 60
    assert f"{shown['cut_tokens']} tokens cut off 2 of them" in drawn(tokenizer, rows)
    assert f"line 100: 60 tokens, {rows[1].trained_tokens} trained, {rows[1].cut_tokens} cut off" in drawn(
        tokenizer, rows
    )


def test_trained_tokens_are_green_and_the_rest_is_dim(tokenizer: Any) -> None:
    shown = drawn(
        tokenizer, build_rows(tokenizer, [example(user("Hi"), assistant("Ho"))], max_tokens=99, shown_as="f")
    )
    assert f"{GREEN}Ho<|im_end|>" in shown
    assert f"{DIM}Hi<|im_end|>" in shown or "Hi<|im_end|>" in shown.partition(GREEN)[0]


def test_a_preference_is_shown_with_its_prompt_and_both_answers(tokenizer: Any) -> None:
    pairs = [preference(assistant("Ho."), assistant("No, no, no!"))]
    rows = build_preference_rows(tokenizer, pairs, max_tokens=99, shown_as="f")
    (row,) = describe(tokenizer, rows, 9)["rows"]
    assert (row["preferred"], row["rejected"]) == ("Ho.<|im_end|>", "No, no, no!<|im_end|>")
    assert row["prompt"].endswith("assistant\n")
    lengths = (row["prompt_tokens"], row["preferred_tokens"], row["rejected_tokens"])
    assert lengths == tuple(
        len(tokens) for tokens in (rows[0].prompt_ids, rows[0].chosen_ids, rows[0].rejected_ids)
    )
    shown = drawn(tokenizer, rows)
    assert f"{GREEN}Ho." in shown
    assert f"{RED}No, no, no!" in shown


def test_totals_of_preferences_count_the_prompt_with_each_answer(tokenizer: Any) -> None:
    pairs = [preference(assistant("Ho."), assistant("No, no, no!"))]
    (row,) = rows = build_preference_rows(tokenizer, pairs, max_tokens=99, shown_as="f")
    shown = describe(tokenizer, rows, 0)
    answers = len(row.chosen_ids) + len(row.rejected_ids)
    assert shown["tokens"] == 2 * len(row.prompt_ids) + answers
    assert shown["trained_tokens"] == answers
    assert shown["longest_tokens"] == len(row.prompt_ids) + len(row.rejected_ids)


def test_a_file_cannot_steer_the_terminal(tokenizer: Any) -> None:
    row = Row(1, tokenizer("\x1b[2Jgone")["input_ids"], tokenizer("\x1b[2Jgone")["input_ids"])
    assert "\x1b[2J" not in drawn(tokenizer, [row])
    assert "␛[2Jgone" in drawn(tokenizer, [row])


@pytest.fixture
def preview(settings: Settings, tiny_model: Model):
    def run(file: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LOCAL_LLM_HOME": str(settings.home), **variables}
        line = [
            sys.executable,
            "-m",
            "local_llm",
            "train",
            "preview",
            str(file),
            "--model",
            tiny_model.name,
            *arguments,
        ]
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_the_command_shows_files_of_both_methods(preview, tmp_path: Path) -> None:
    conversations = write_lines(tmp_path / "chat.jsonl", good_lines())
    done = preview(conversations)
    assert done.returncode == 0, done.stderr
    assert "Question 0?" in done.stdout
    assert "16 examples" in done.stdout
    shown = json.loads(preview(write_lines(tmp_path / "dpo.jsonl", PREFERENCES), "--json").stdout)
    assert (shown["method"], shown["examples"], len(shown["rows"])) == ("dpo", 12, 3)
    assert shown["rows"][0]["preferred"] == "Yes 0<|im_end|>"


def test_the_command_refuses_long_examples_or_says_what_it_cuts(preview, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "f.jsonl", [*good_lines(), conversation("?", "word " * 300)])
    limit = {"LOCAL_LLM_TRAINING__MAX_TOKENS": "100"}
    done = preview(file, **limit)
    assert done.returncode == 1
    assert "line 17" in done.stderr
    assert "training.over_long" in done.stderr
    done = preview(file, "--over-long", "cut", "--json", **limit)
    assert json.loads(done.stdout)["cut_rows"] == 1
