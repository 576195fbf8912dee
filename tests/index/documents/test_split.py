"""Passages: exact offsets, no word lost, never more than the encoder reads."""

import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from index.documents.media_types import CODE, CSV, MARKDOWN, PDF, PLAIN, PPTX
from index.documents.parse import ParsedDocument
from index.documents.split import PATH_SEPARATOR, Passage, Splitter
from index.documents.tokens import MOST_CHARACTERS_PER_TOKEN, TokenEnds
from index.interface import Page
from index.service import IndexService
from local_llm.errors import InvalidInputError, SettingsError

CHUNK_TOKENS = 24


def words_with_ends(text: str) -> list[int]:
    """A tokenizer for tests: a token for each word and for each other character that is not white space."""
    return [match.end() for match in re.finditer(r"\w+|[^\w\s]", text)]


def bytes_with_ends(text: str) -> list[int]:
    """A tokenizer like byte-level ones: a word that white space comes before is one token, else each letter is."""
    return [
        end
        for match in re.finditer(r"\s\w+|\S|\s", text)
        for end in ([match.end()] if match.end() - match.start() > 1 else range(match.start() + 1, match.end() + 1))
    ]


def splitter(chunk_tokens: int = CHUNK_TOKENS, overlap_tokens: int = 6) -> Splitter:
    return Splitter(words_with_ends, chunk_tokens=chunk_tokens, overlap_tokens=overlap_tokens, max_tokens=256)


def split(text: str, media_type: str = MARKDOWN, **sizes: int) -> list[Passage]:
    return splitter(**sizes).split(ParsedDocument("Title", text, (), media_type))


def texts(text: str, passages: list[Passage]) -> list[str]:
    return [text[passage.start : passage.end] for passage in passages]


word = st.text("abcdefgäß漢。.", min_size=1, max_size=8) | st.sampled_from(
    ["#", "# x", "```", "~~~", "-", "|", "e.g.", "| a | b |\n| --- | --- |\n| c | d |", "x" * 700]
)
blank = st.sampled_from(
    [" ", "\n", "\n\n", "\t", "\n## ", "\n#\t", "\n\n\n", " \n  ", "\n```\n", "! ", ". ", "\x1c", "\u3000", "\n| "]
)
markdown = st.lists(st.tuples(word, blank), max_size=60).map(lambda parts: "".join(a + b for a, b in parts))
kinds = st.sampled_from([MARKDOWN, PLAIN, CODE, CSV])
tokenizers = st.sampled_from([words_with_ends, bytes_with_ends])


def lost_words(text: str, passages: list[Passage]) -> list[str]:
    """Words in no passage and in no heading of one."""
    covered = set()
    for passage in passages:
        covered |= set(range(passage.start, passage.end))
    in_headings = {"", *" ".join(passage.heading for passage in passages).split()}
    return [
        found.group()
        for found in re.finditer(r"\S+", text)
        if not covered >= set(range(*found.span()))
        and in_headings.isdisjoint({found.group(), found.group().strip("#")})
    ]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=markdown, media_type=kinds, overlap_tokens=st.integers(0, 12), token_ends=tokenizers)
@example("a a\n## a\n## \u3002 \n  .\n## ", PLAIN, 5, bytes_with_ends)  # a shared piece began with blanks
@example("# #! a\n| ", MARKDOWN, 0, words_with_ends)  # a heading that begins with #
def test_no_word_is_lost_and_every_offset_holds(
    text: str, media_type: str, overlap_tokens: int, token_ends: TokenEnds
) -> None:
    made = Splitter(token_ends, chunk_tokens=CHUNK_TOKENS, overlap_tokens=overlap_tokens, max_tokens=256)
    document = ParsedDocument("Title", text, (), media_type)
    passages = made.split(document)
    for passage in passages:
        content = text[passage.start : passage.end]
        assert content.strip()
        assert content == (content.rstrip() if media_type == CODE else content.strip())
        assert passage.encoded == passage.context + content
        assert passage.encoded == made.encoded("Title", passage.heading, passage.table_header, content)
        assert passage.tokens == len(token_ends(passage.encoded)) <= CHUNK_TOKENS
    assert [passage.end for passage in passages] == sorted({passage.end for passage in passages})
    assert lost_words(text, passages) == []
    assert passages == made.split(document)


def test_headings_are_carried_along_but_not_cited() -> None:
    text = "# Guide\n\nIntro.\n\n## Power\n\n### Battery\n\nFour hours.\n\n## Care\n\nWipe it."
    passages = split(text)
    assert [(passage.heading, found) for passage, found in zip(passages, texts(text, passages), strict=True)] == [
        ("Guide", "Intro."),
        (PATH_SEPARATOR.join(("Guide", "Power", "Battery")), "Four hours."),
        (PATH_SEPARATOR.join(("Guide", "Care")), "Wipe it."),
    ]
    assert passages[0].encoded == "Title > Guide\nIntro."


def test_heading_with_nothing_below_is_a_passage_of_its_own() -> None:
    text = "# Guide\n\n## Empty one\n\n## Care\n\nWipe it.\n\n# Thank you"
    found = [(passage.heading, cited) for passage, cited in zip(split(text), texts(text, split(text)), strict=True)]
    assert found == [
        ("Guide", "## Empty one"),
        (PATH_SEPARATOR.join(("Guide", "Care")), "Wipe it."),
        ("", "# Thank you"),
    ]


def test_heading_in_a_code_block_is_text() -> None:
    text = "# Real\n\n```\n# comment\nrun\n```\n"
    assert texts(text, split(text)) == ["```\n# comment\nrun\n```"]


def test_repeated_text_is_cited_where_it_stands() -> None:
    text = "# A\n\nSame words.\n\n# B\n\nSame words.\n"
    first, second = split(text)
    assert (first.start, second.start) == (5, text.rindex("Same"))
    assert (first.heading, second.heading) == ("A", "B")


def test_neighbours_share_whole_sentences() -> None:
    text = "One two three four five and so on. Six seven. Eight nine ten eleven twelve. Red green blue."
    assert texts(text, split(text, PLAIN, chunk_tokens=16, overlap_tokens=4)) == [
        "One two three four five and so on. Six seven.",
        "Six seven. Eight nine ten eleven twelve. Red green blue.",
    ]


def test_paragraph_that_fits_a_passage_is_not_cut() -> None:
    first, second = "One two three. Four five six. Seven eight.", "Red blue. Green grey. Black white. Pink brown."
    text = f"{first}\n\n{second}"
    assert texts(text, split(text, PLAIN, chunk_tokens=20, overlap_tokens=0)) == [first, second]


def test_passage_knows_its_page() -> None:
    text = "First page.\n\nSecond page"
    document = ParsedDocument("Title", text, (Page(1, 0, 11), Page(2, 13, 24)), PDF)
    found = [(passage.page, text[passage.start : passage.end]) for passage in splitter().split(document)]
    assert found == [(1, "First page."), (2, "Second page")]


def test_sentence_across_two_pages_is_one_passage_of_the_first() -> None:
    text = "A sentence that goes\non overleaf."
    document = ParsedDocument("Title", text, (Page(1, 0, 20), Page(2, 21, 33)), PDF)
    assert [(passage.page, passage.end) for passage in splitter().split(document)] == [(1, 33)]


def test_slides_stay_apart_and_their_titles_are_headings() -> None:
    text = "# One\nFirst text\n\n# Two\nSecond text"
    document = ParsedDocument("Deck", text, (Page(1, 0, 16), Page(2, 18, 35)), PPTX)
    found = [(one.page, one.heading, text[one.start : one.end]) for one in splitter().split(document)]
    assert found == [(1, "One", "First text"), (2, "Two", "Second text")]


def test_rows_of_a_long_table_are_whole_and_carry_its_header() -> None:
    rows = [f"| item {number} | {number * 7} |" for number in range(20)]
    table = "\n".join(["| part | price |", "| --- | --- |", *rows])
    text = f"# List\n\nBefore it.\n\n{table}\n\nAfter it."
    passages = split(text, chunk_tokens=48)
    assert texts(text, passages)[0] == "Before it."
    assert texts(text, passages)[-1] == "After it."
    cut = passages[1:-1]
    assert "\n".join(texts(text, cut)) == table
    assert [passage.context for passage in cut] == ["Title > List\n"] + ["Title > List\n| part | price |\n"] * (
        len(cut) - 1
    )
    assert len(cut) > 3


def test_table_that_fits_stays_with_its_text() -> None:
    text = "Prices:\n\n| part | price |\n| --- | --- |\n| lid | 3 |"
    assert texts(text, split(text, chunk_tokens=48)) == [text]


def test_code_is_cut_between_definitions_and_keeps_its_indentation() -> None:
    first = "def first(a):\n    b = a\n\n    return b"
    second = "class Second:\n    def run(self):\n        return 1"
    text = f"{first}\n\n\n{second}\n"
    assert texts(text, split(text, CODE, chunk_tokens=20, overlap_tokens=0)) == [first, second]
    inside = "def long():\n" + "".join(f"    x{number} = {number} + 1\n" for number in range(20))
    assert all(cited.startswith(("def", "    x")) for cited in texts(inside, split(inside, CODE)))


def test_long_headings_leave_room_for_the_text() -> None:
    text = f"# {'very ' * 50}long\n\n{'word ' * 40}"
    passages = split(text)
    assert all(passage.tokens <= CHUNK_TOKENS for passage in passages)
    assert sum(cited.count("word") for cited in texts(text, passages)) >= 40


def test_word_without_end_is_cut() -> None:
    text = "QUJD" * 1000
    passages = split(text, PLAIN)
    assert "".join(texts(text, passages)) == text
    assert max(passage.end - passage.start for passage in passages) <= CHUNK_TOKENS * MOST_CHARACTERS_PER_TOKEN


def test_sizes_may_be_given_with_the_document() -> None:
    document = ParsedDocument("Title", "One two three. " * 40, (), PLAIN)
    smaller = splitter(chunk_tokens=64).split(document, chunk_tokens=20, overlap_tokens=0)
    assert max(passage.tokens for passage in smaller) <= 20 < splitter(chunk_tokens=64).split(document)[0].tokens
    with pytest.raises(InvalidInputError, match="chunk_tokens = 800, but the encoder reads 256 tokens"):
        splitter().split(document, chunk_tokens=800)


def test_sizes_that_the_encoder_cannot_read_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"index\.chunk_tokens = 300, but the encoder reads 256"):
        splitter(chunk_tokens=300)
    with pytest.raises(SettingsError, match="half of chunk_tokens = 24"):
        splitter(overlap_tokens=20)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=markdown | st.text(max_size=400), media_type=kinds)
def test_real_encoder_reads_every_passage_whole(service: IndexService, text: str, media_type: str) -> None:
    encoder = service.encoder()
    sized = Splitter(encoder.token_ends, chunk_tokens=32, overlap_tokens=8, max_tokens=encoder.max_tokens)
    for passage in sized.split(ParsedDocument("Title", text, (), media_type)):
        assert encoder.count_tokens(passage.encoded) == passage.tokens <= 32
