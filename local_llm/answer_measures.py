"""How near an answer comes to the right one, in words: all results are in [0, 1].

Source: Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", section 6.1: compared
are words in lower case, without punctuation and the articles a, an, the. ROUGE-L: Lin 2004, section 3.
"""

import re
import unicodedata
from collections import Counter

_MARKER = re.compile(r"[^\S\n]*\[\d+\]")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def without_markers(answer: str) -> str:
    """The answer without `[n]`, which tell of its sources and not what it says."""
    return _MARKER.sub("", answer)


def words(text: str) -> list[str]:
    """What is compared of a text. One of articles alone is not emptied: "A" may be the right choice of four."""
    kept = "".join(" " if unicodedata.category(one)[0] in "PS" else one for one in text.casefold())
    return _ARTICLE.sub(" ", kept).split() or kept.split()


def exact_match(answer: str, right: str) -> float:
    return float(words(answer) == words(right))


def f1(answer: str, right: str) -> float:
    """Of precision and recall in words, each counted as often as it stands there."""
    said, wanted = words(answer), words(right)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return _f1(shared, len(said), len(wanted))


def containment(answer: str, right: str) -> float:
    """Whether the right answer's words stand in the answer, side by side."""
    said, wanted = words(answer), words(right)
    if not wanted:
        return float(not said)
    return float(any(said[at : at + len(wanted)] == wanted for at in range(len(said) - len(wanted) + 1)))


def rouge_l(answer: str, right: str) -> float:
    """F1 of the longest common subsequence of words (β = 1)."""
    said, wanted = words(answer), words(right)
    return _f1(_longest_common(said, wanted), len(said), len(wanted))


def _f1(shared: int, said: int, wanted: int) -> float:
    """Two empty texts are equal."""
    if not said or not wanted:
        return float(said == wanted)
    return 2 * shared / (said + wanted)


def _longest_common(one: list[str], other: list[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for at, their in enumerate(other, 1):
            above = row[at]
            row[at] = before + 1 if word == their else max(above, row[at - 1])
            before = above
    return row[-1]
