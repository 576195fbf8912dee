"""Markers that a model writes itself: claims of where a sentence is from.

A model that was trained on answers with markers writes them; others imitate the numbers of the passages they read.
A marker is taken for a claim where a sentence ends: behind its stop ("It is full. [2]"), before it ("It is full
[2]."), or at the end of a line or of the answer ("Rollo [2]"). Anywhere else `[2]` is text, and so it is in a block
of code.
"""

import re
from dataclasses import dataclass

# As many markers and spaces are looked at together: what is held back of a stream is a few characters.
_SPACES = r"[^\S\n]{0,4}"
_MARKER = r"\[[1-9][0-9]{0,2}\]"
_STOP = r"[.!?]{1,3}[\"')]{0,4}"
_MARKERS = re.compile(rf"(?:{_SPACES}{_MARKER}){{1,8}}")
_NUMBER = re.compile(r"[0-9]+")
_SENTENCE_ENDS = re.compile(rf"{_SPACES}(?:\n|\Z)|{_STOP}(?:\s|\Z)")
_BLANK_OR_END = re.compile(r"\s|\Z")
# What a marker and its surroundings may begin with: more text decides.
_BEGUN = re.compile(
    rf"(?:{_SPACES}{_MARKER}){{0,8}}{_SPACES}(?:\[(?:[1-9][0-9]{{0,2}})?)?"
    rf"|(?:{_SPACES}{_MARKER}){{1,8}}{_STOP}"
)
LONGEST = 9 * (4 + 5) + 7
FENCE = "```"


@dataclass(frozen=True)
class Claims:
    """The passages that markers name, where they end in the text, and whether they end their sentence there."""

    numbers: tuple[int, ...]
    end: int
    closes: bool


def is_open(text: str, at: int) -> bool:
    """Whether it takes more text to see if markers stand at this place."""
    return len(text) - at <= LONGEST and _BEGUN.fullmatch(text, at) is not None


def claims_at(text: str, at: int, *, after_stop: bool) -> Claims | None:
    """The markers that stand at this place, where they tell of a sentence. The end of `text` is that of the answer.

    `after_stop`: a sentence's stop stands before it. Else a marker without a space before it is an index: `a[1]`.
    """
    found = _MARKERS.match(text, at)
    if found is None or not (after_stop or text[at].isspace()):
        return None
    if not (_BLANK_OR_END if after_stop else _SENTENCE_ENDS).match(text, found.end()):
        return None
    numbers = tuple(dict.fromkeys(int(number) for number in _NUMBER.findall(found.group())))
    return Claims(numbers, found.end(), after_stop)
