"""Text that regular expressions could take hours over is read in a time that grows with its length."""

from pathlib import Path
from time import process_time

import pytest

from index.documents.document import ParsedDocument
from index.documents.media_types import CODE
from index.documents.parse import parse
from index.documents.split import Splitter

BLANKS = 400_000
# Quadratic work on so many takes hours, linear work well under a second.
MOST_SECONDS = 30


def word_ends(text: str) -> list[int]:
    """A tokenizer of words, for sizes alone."""
    ends, at = [], 0
    for word in text.split():
        at = text.index(word, at) + len(word)
        ends.append(at)
    return ends


@pytest.mark.parametrize("line", ["# a" + " " * BLANKS + "b", "#" + " " * BLANKS, "# a" + " #" * BLANKS])
def test_a_heading_of_blanks_holds_nobody_up(line: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.md"
    path.write_text(f"{line}\n\nText.\n", encoding="utf-8")
    started = process_time()
    assert "Text." in parse(path, path.name).text
    assert process_time() - started < MOST_SECONDS


def test_code_with_many_empty_lines_is_cut_at_once() -> None:
    text = "def a():\n    return 1\n" + "\n" * BLANKS + "def b():\n    return 2\n"
    splitter = Splitter(word_ends, chunk_tokens=16, overlap_tokens=0, max_tokens=256)
    started = process_time()
    passages = splitter.split(ParsedDocument(title="a.py", text=text, pages=(), media_type=CODE))
    assert process_time() - started < MOST_SECONDS
    assert {word for one in passages for word in text[one.start : one.end].split()} == set(text.split())
