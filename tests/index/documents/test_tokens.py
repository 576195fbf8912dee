"""Spans measured by bisection are what the tokenizer says of them."""

import re

from hypothesis import given
from hypothesis import strategies as st

from index.documents.tokens import MOST_CHARACTERS_PER_TOKEN, MeasuredText, is_additive
from index.service import IndexService


def words_with_ends(text: str) -> list[int]:
    return [match.end() for match in re.finditer(r"\w+|[^\w\s]", text)]


def words_with_their_space(text: str) -> list[int]:
    """A word without a space before it is spelt."""
    return [
        end
        for match in re.finditer(r"\s\w+|\S", text)
        for end in (match.end(), *([match.end()] if match.group()[0] != " " else []))
    ]


words = st.lists(st.text("abc.,", min_size=1, max_size=60), max_size=30).map(" ".join)


@given(text=words, room=st.integers(1, 12), share=st.floats(0, 1))
def test_reach_is_the_furthest_span_that_fits(text: str, room: int, share: float) -> None:
    measured, start = MeasuredText(text, words_with_ends), int(share * len(text))
    end = measured.reach(start, room)
    assert measured.size(start, end) <= room
    if end < len(text):
        following = next((at for at in words_with_ends(text) if at > end), len(text))
        assert measured.size(start, following) > room


@given(text=words, room=st.integers(1, 12), share=st.floats(0, 1))
def test_reach_back_is_the_earliest_span_that_fits(text: str, room: int, share: float) -> None:
    measured, end = MeasuredText(text, words_with_ends), int(share * len(text))
    start = measured.reach_back(end, room)
    assert measured.size(start, end) <= room
    assert start == 0 or measured.size(start - 1, end) > room


def test_long_text_is_measured_as_one() -> None:
    text = "word, " * 40_000
    measured = MeasuredText(text, words_with_ends)
    assert measured.tokens(0, len(text)) == 80_000
    assert measured.size(0, 10 * MOST_CHARACTERS_PER_TOKEN) == len(
        words_with_ends(text[: 10 * MOST_CHARACTERS_PER_TOKEN])
    )


def test_only_tokenizers_that_know_no_neighbours_are_added_up(service: IndexService) -> None:
    assert is_additive(words_with_ends)
    assert is_additive(service.encoder().token_ends)
    assert not is_additive(words_with_their_space)
