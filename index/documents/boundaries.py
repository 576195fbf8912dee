"""Where a text may be cut: the best place that leaves both sides whole."""

import re
from dataclasses import dataclass

from index.documents.tokens import MeasuredText

# After the end of a sentence, and after a line: list items stand for themselves. NLTK's sentences, LlamaIndex's
# own choice, need data files and know neither lists nor tables.
# The code points are the full stop, exclamation and question mark of Chinese and Japanese.
SENTENCE = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|\n\s*|(?<=[\u3002\uff01\uff1f])\s*")
_BLOCK = re.compile(r"\n[^\S\n]*\n\s*")
# The code points are the comma, enumeration comma and semicolon of Chinese and Japanese.
_CLAUSE = re.compile(r"(?<=[,;:])\s+|(?<=[\uff0c\u3001\uff1b])")
_WORD = re.compile(r"\s+")
_ROW = re.compile(r"\n\s*")
_CELL = re.compile(r"(?<!\\)\|\s+")
# A line that begins at the margin after an empty one: in most languages a definition of the top level.
# Possessive, and begun only where lines begin to be empty: a thousand of them are looked at once.
_DEFINITION = re.compile(r"(?<=\S)[^\S\n]*+\n(?:[^\S\n]*+\n)++(?=\S)")
_EMPTY_LINES = re.compile(r"\n(?:[^\S\n]*+\n)++")
_LINE = re.compile(r"\n")


@dataclass(frozen=True)
class Grain:
    """How a kind of text is cut.

    Matches of `levels` end where a piece may begin, from the best kind of place to the worst; those of `overlap`
    where what neighbours share may begin. If `indented`, blanks before a line's first word belong to it.
    """

    levels: tuple[re.Pattern[str], ...]
    overlap: re.Pattern[str] | None
    indented: bool = False


PROSE = Grain((_BLOCK, SENTENCE, _CLAUSE, _WORD), SENTENCE)
TABLE = Grain((_BLOCK, _ROW, _CELL, _WORD), None)
CODE = Grain((_DEFINITION, _EMPTY_LINES, _LINE, _WORD), _LINE, indented=True)

# A block is moved to the next passage whole if this share of the passage is filled without it.
LEAST_FILLED_SHARE = 4

# Quotes and brackets between a full stop and the white space that SENTENCE looks for.
LONGEST_CLOSING = 4


def cut(measured: MeasuredText, grain: Grain, span: tuple[int, int], fresh: int, room: int) -> int:
    """Where to end a passage that begins at span[0] and may go on to span[1], beyond `fresh`.

    Of each level the last place that fits is taken, if what is cut off there, up to the next place of that
    level, fits a passage too; else that is to be cut itself, at the next level.
    """
    start, stop = span
    limit = skip_blank(measured.text, measured.reach(start, room), stop)
    if limit >= stop:
        return stop
    for level in grain.levels:
        filled = measured.reach(start, room // LEAST_FILLED_SHARE) if level is grain.levels[0] else fresh
        before = _last(level, measured.text, max(fresh, filled), limit)
        if before is not None and _next_fits(measured, level, before, limit, stop, room):
            return before
    return max(limit, fresh + 1)


def overlap_start(measured: MeasuredText, grain: Grain, span: tuple[int, int], most: int) -> int | None:
    """Where the last whole pieces of the span begin that are of size `most` at most."""
    if grain.overlap is None or most == 0:
        return None
    start, end = span
    earliest = measured.reach_back(end, most)
    from_here = max(start, earliest - LONGEST_CLOSING)
    places = (match.end() for match in grain.overlap.finditer(measured.text, from_here, end))
    return next((at for at in places if max(start + 1, earliest) <= at < end), None)


def beginning(text: str, grain: Grain, at: int, stop: int) -> int:
    """The first character at or after `at` that a piece may begin with."""
    word = skip_blank(text, at, stop)
    return max(at, text.rfind("\n", at, word) + 1) if grain.indented else word


def skip_blank(text: str, at: int, stop: int) -> int:
    while at < stop and text[at].isspace():
        at += 1
    return at


def _last(level: re.Pattern[str], text: str, after: int, limit: int) -> int | None:
    """The last place of the level in (after, limit]."""
    found = None
    for match in level.finditer(text, after, limit):
        found = match.end()
    return found if found is not None and found > after else None


def _next_fits(
    measured: MeasuredText, level: re.Pattern[str], before: int, limit: int, stop: int, room: int
) -> bool:
    furthest = measured.reach(before, room)
    return before == limit or furthest >= stop or level.search(measured.text, limit, furthest) is not None
