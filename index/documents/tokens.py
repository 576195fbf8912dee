"""Where the encoder's tokens lie in a text, asked for once: counts and cuts are then bisections."""

import math
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

TokenEnds = Callable[[str], list[int]]
"""The encoder's tokenizer: for each token of a text, the character where it ends. No special tokens."""

# A passage also has an end where tokens do not: word-piece tokenizers read a word of over 100 characters, as
# encoded files have, as one unknown token. Prose has 4 to 5 characters a token.
MOST_CHARACTERS_PER_TOKEN = 16

# White space to every tokenizer. BERT's drops U+001C to U+001F, which Python takes for white space.
PLAIN_BLANKS = " \t\n"

# Tokenizers take memory by the text they are given: some hundred bytes a token.
BLOCK_CHARACTERS = 1 << 16
_LAST_BLANK = re.compile(r".*[ \t\n]", re.DOTALL)

# Words of all kinds: plain, rare, with marks, numbers, signs, letters of other scripts.
_PROBE = (
    *("The", "retriever", "re-encodes", "naïve", "Straßen,", "3.14159", "\u00d7", "10⁻³", "(v2.0.1)…", '"Quoted"'),
    *("don't", "http://a.b/c?d=e&f", "pneumonoultramicroscopic", "UPPER", "camelCase", "snake_case", "#hash"),
    *(
        "@name",
        "漢字かな한국어",
        "Привет",
        "مرحبا",
        "\ufb01ne",
        "½",
        "№",
        "😀👍🏽",
        "hello",
        "world",
        "tokenization",
    ),
    *("hydroxychloroquine", "aaaaaaaa", "0000", "12345678", "---", "***", "<b>x</b>", "e.g.", "I'm"),
)


def is_additive(token_ends: TokenEnds) -> bool:
    """Whether white space cuts a text without changing a token beside it.

    So with BERT's and most SentencePiece tokenizers; not with byte-level ones, whose words begin with their space.
    """
    for blank in (" ", "\n", "  \n\t"):
        expected, at = [], 0
        for word in _PROBE:
            expected += [at + end for end in token_ends(word)]
            at += len(word) + len(blank)
        if token_ends(blank.join(_PROBE)) != expected:
            return False
    return True


class MeasuredText:
    """A text whose spans can be measured in tokens."""

    def __init__(self, text: str, token_ends: TokenEnds):
        self.text = text
        self._ends = array("q", _ends(text, token_ends))

    def tokens(self, start: int, end: int) -> int:
        """Tokens that end in (start, end]."""
        return bisect_right(self._ends, end) - bisect_right(self._ends, start)

    def size(self, start: int, end: int) -> int:
        """What the span takes of a passage: its tokens, or more if these are unusually long."""
        return max(self.tokens(start, end), math.ceil((end - start) / MOST_CHARACTERS_PER_TOKEN))

    def reach(self, start: int, room: int) -> int:
        """The furthest end of a span from `start` whose size is `room` at most."""
        past = bisect_right(self._ends, start) + room
        if past >= len(self._ends):
            return min(len(self.text), start + room * MOST_CHARACTERS_PER_TOKEN)
        end = self._ends[past - 1]
        if self._ends[past] == end:  # several tokens end in one character: all of them or none
            end = self._ends[max(0, bisect_left(self._ends, end) - 1)]
        return min(end, start + room * MOST_CHARACTERS_PER_TOKEN)

    def reach_back(self, end: int, room: int) -> int:
        """The earliest start of a span up to `end` whose size is `room` at most."""
        first = bisect_right(self._ends, end) - room
        start = self._ends[first - 1] if first > 0 else 0
        return max(start, end - room * MOST_CHARACTERS_PER_TOKEN)


def _ends(text: str, token_ends: TokenEnds) -> Iterator[int]:
    for start, end in _blocks(text):
        for token_end in token_ends(text[start:end]):
            yield start + token_end


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """The text in blocks that end at white space, where there is any."""
    start = 0
    while start < len(text):
        end = min(start + BLOCK_CHARACTERS, len(text))
        if end < len(text):
            blank = _LAST_BLANK.match(text, start, end)
            end = blank.end() if blank else end
        yield start, end
        start = end
