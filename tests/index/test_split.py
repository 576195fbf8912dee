"""Passages: exact offsets, no word lost, never more than the encoder reads."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.documents.parse import MARKDOWN, PDF, PLAIN, ParsedDocument
from index.documents.split import MOST_CHARACTERS_PER_TOKEN, PATH_SEPARATOR, Passage, Splitter, split_sentences
from index.interface import Page
from index.service import IndexService
from local_llm.errors import SettingsError


def words_with_ends(text: str) -> list[int]:
    """A tokenizer for tests: a token for each word and for each other character that is not white space."""
    return [match.end() for match in re.finditer(r"\w+|[^\w\s]", text)]


def splitter(chunk_tokens: int = 24, overlap_tokens: int = 6) -> Splitter:
    return Splitter(words_with_ends, chunk_tokens=chunk_tokens, overlap_tokens=overlap_tokens, max_tokens=256)


def split(text: str, media_type: str = MARKDOWN, **sizes: int) -> list[Passage]:
    return splitter(**sizes).split(ParsedDocument("Title", text, (), media_type))


word = st.text("abcdefgäß漢.", min_size=1, max_size=8) | st.sampled_from(
    ["#", "# x", "```", "~~~", "-", "|", "e.g."]
)
blank = st.sampled_from(
    [" ", "\n", "\n\n", "\t", "\n## ", "\n#\t", "\n\n\n", " \n  ", "\n```\n", "! ", ". ", "\x1c", "\u3000"]
)
markdown = st.lists(st.tuples(word, blank), max_size=120).map(lambda parts: "".join(a + b for a, b in parts))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=markdown, media_type=st.sampled_from([MARKDOWN, PLAIN]), overlap_tokens=st.integers(0, 12))
def test_no_word_is_lost_and_every_offset_holds(text: str, media_type: str, overlap_tokens: int) -> None:
    passages = split(text, media_type, overlap_tokens=overlap_tokens)
    covered = set()
    for passage in passages:
        content = text[passage.start : passage.end]
        assert content.strip()
        assert content == content.strip()
        assert passage.encoded.endswith(content)
        assert passage.tokens <= 24
        covered |= set(range(passage.start, passage.end))
    for found in re.finditer(r"\S+", text):
        line = text[text.rfind("\n", 0, found.start()) + 1 :].partition("\n")[0]
        in_heading = media_type == MARKDOWN and line.lstrip().startswith("#")
        assert in_heading or covered >= set(range(*found.span())), line


@settings(max_examples=100, deadline=None)
@given(text=markdown)
def test_sentences_joined_are_the_text(text: str) -> None:
    assert "".join(split_sentences(text)) == text


def test_headings_are_carried_along_but_not_cited() -> None:
    text = "# Guide\n\nIntro.\n\n## Power\n\n### Battery\n\nFour hours.\n\n## Empty\n\n## Care\n\nWipe it."
    found = [(passage.heading, text[passage.start : passage.end]) for passage in split(text)]
    assert found == [
        ("Guide", "Intro."),
        (PATH_SEPARATOR.join(("Guide", "Power", "Battery")), "Four hours."),
        (PATH_SEPARATOR.join(("Guide", "Care")), "Wipe it."),
    ]
    assert split(text)[0].encoded == "Title > Guide\nIntro."


def test_heading_in_a_code_block_is_text() -> None:
    text = "# Real\n\n```\n# comment\nrun\n```\n"
    assert [text[passage.start : passage.end] for passage in split(text)] == ["```\n# comment\nrun\n```"]


def test_repeated_text_is_cited_where_it_stands() -> None:
    text = "# A\n\nSame words.\n\n# B\n\nSame words.\n"
    first, second = split(text)
    assert (first.start, second.start) == (5, text.rindex("Same"))
    assert (first.heading, second.heading) == ("A", "B")


def test_neighbours_share_whole_sentences() -> None:
    text = "One two three four five. Six seven. Eight nine ten eleven twelve. Red green blue grey."
    passages = split(text, PLAIN, chunk_tokens=16, overlap_tokens=4)
    found = [text[passage.start : passage.end] for passage in passages]
    assert found == [
        "One two three four five. Six seven.",
        "Six seven. Eight nine ten eleven twelve. Red green blue grey.",
    ]


def test_passage_lies_on_one_page() -> None:
    text = "First page.\n\nSecond page."
    document = ParsedDocument("Title", text, (Page(1, 0, 11), Page(2, 13, 25)), PDF)
    found = [(passage.page, text[passage.start : passage.end]) for passage in splitter().split(document)]
    assert found == [(1, "First page."), (2, "Second page.")]


def test_long_headings_leave_room_for_the_text() -> None:
    text = f"# {'very ' * 50}long\n\n{'word ' * 40}"
    passages = split(text)
    assert all(passage.tokens <= 24 for passage in passages)
    assert sum(text[passage.start : passage.end].count("word") for passage in passages) >= 40


def test_word_without_end_is_cut() -> None:
    text = "QUJD" * 1000
    passages = split(text, PLAIN)
    assert "".join(text[passage.start : passage.end] for passage in passages) == text
    assert max(passage.end - passage.start for passage in passages) <= 24 * MOST_CHARACTERS_PER_TOKEN


def test_sizes_that_the_encoder_cannot_read_are_refused() -> None:
    with pytest.raises(SettingsError, match="the encoder reads 256"):
        splitter(chunk_tokens=300)
    with pytest.raises(SettingsError, match="more than half"):
        splitter(overlap_tokens=20)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=markdown | st.text(max_size=400))
def test_real_encoder_reads_every_passage_whole(service: IndexService, text: str) -> None:
    encoder = service.encoder()
    sized = Splitter(encoder.token_ends, chunk_tokens=32, overlap_tokens=8, max_tokens=encoder.max_tokens)
    for passage in sized.split(ParsedDocument("Title", text, (), PLAIN)):
        assert encoder.count_tokens(passage.encoded) == passage.tokens <= 32
