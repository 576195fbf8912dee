import random
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.answering.citations import CitationWriter
from serving.answering.words import content_words, numbers_and_names


@dataclass
class Passage:
    title: str
    text: str
    start: int = 0
    heading: str = ""


CODES = Passage("Scanner error codes", "E19 means the imager failed. E31 means the scan memory is full.", start=100)
TRIAL = Passage("Plans", "The free trial of the Heron plan lasts 21 days. No card is needed.")


def write(answer: str, *passages: Passage, piece: int = 10_000) -> tuple[str, CitationWriter]:
    writer = CitationWriter(passages)
    pieces = [answer[start : start + piece] for start in range(0, len(answer), piece)]
    return "".join(writer.feed(text) for text in pieces) + writer.finish(), writer


def test_a_supported_sentence_is_marked_and_points_to_the_characters() -> None:
    text, writer = write("Error E31 means the scan memory is full. I hope this helps!", TRIAL, CODES)
    assert text == "Error E31 means the scan memory is full. [2] I hope this helps!"
    (mark,) = writer.marks
    assert CODES.text[mark.support.start - 100 : mark.support.end - 100] == "E31 means the scan memory is full."
    assert text[mark.answer_start : mark.answer_end] == " [2]"


def test_a_wrong_number_is_not_supported() -> None:
    assert write("The free trial of the Heron plan lasts 30 days.", TRIAL)[1].marks == []
    assert len(write("The free trial of the Heron plan lasts 21 days.", TRIAL)[1].marks) == 1


def test_a_sentence_about_something_else_is_not_supported() -> None:
    assert write("Bananas grow in the tropics and are yellow.", TRIAL, CODES)[1].marks == []


def test_repeating_what_the_passage_is_about_is_no_support() -> None:
    passage = Passage("Scan error codes", "The scanner keeps 1,200 scans.", heading="Scan error codes > About E31")
    assert write("The code E31 is a scan error.", passage)[1].marks == []
    assert write("The code E31 is a firmware error.", passage)[1].marks == []


def test_a_wrapped_line_is_one_sentence_and_a_table_row_stands_alone() -> None:
    wrapped = Passage("Plans", "New customers can try Heron for\n21 days without a card.", heading="Plans > Trial")
    _, writer = write("The free trial of the Heron plan is 21 days.", wrapped)
    assert (writer.marks[0].support.start, writer.marks[0].support.end) == (0, len(wrapped.text))
    table = Passage("Codes", "| E31 | Scan memory is full |\n| E38 | Firmware signature is not valid |")
    assert write("E31 means that the firmware signature is full.", table)[1].marks == []


def test_a_numbered_step_is_marked_at_its_line_end() -> None:
    text, _ = write("Hello!\n1. The scan memory is full.\n2. Call us.\n", CODES)
    assert text == "Hello!\n1. The scan memory is full. [1]\n2. Call us.\n"


def test_a_decimal_point_ends_no_sentence() -> None:
    passage = Passage("Prices", "Storage costs 3.50 euros for each device and month.")
    text, _ = write("Storage costs 3.50 euros for each device.", passage)
    assert text == "Storage costs 3.50 euros for each device. [1]"


def test_without_markers_the_text_is_unchanged_and_the_support_still_known() -> None:
    writer = CitationWriter([CODES], write_markers=False)
    answer = "E31 means the scan memory is full."
    assert writer.feed(answer) + writer.finish() == answer
    assert len(writer.marks) == 1


@given(st.text(alphabet="E31 means scan memory full.\n[]1", max_size=80), st.integers(1, 7))
def test_streaming_in_any_pieces_writes_what_writing_at_once_does(answer: str, piece: int) -> None:
    at_once, whole = write(answer, CODES)
    streamed, pieces = write(answer, CODES, piece=piece)
    assert streamed == at_once
    assert pieces.marks == whole.marks
    for mark in whole.marks:
        assert at_once[mark.answer_start : mark.answer_end] == f" [{mark.support.number}]"


def test_content_words_leave_out_the_commonest_and_a_lists_number() -> None:
    assert content_words("2. The Hub listens on port 8,443.") == {"hub", "listen", "port", "8443"}


def test_a_wrong_name_is_not_supported() -> None:
    passage = Passage("Teams", "Allen led the league in sacks for many years, and Davis led it in tackles.")
    assert len(write("For many years the league was led in sacks by Allen.", passage)[1].marks) == 1
    assert write("For many years the league was led in sacks by Norman.", passage)[1].marks == []


def test_what_begins_a_sentence_or_follows_a_colon_need_not_be_a_name() -> None:
    assert numbers_and_names("Shown: Memory is full at Ghent, Belgium.") == {"ghent", "belgium"}
    assert numbers_and_names("Écoles in Évreux have two or 1,200 pupils.") == {"évreux", "2", "1200"}
    assert numbers_and_names("В городе живут люди, а в Минске их много.") == {"минске"}  # noqa: RUF001


def test_a_number_may_be_written_out() -> None:
    passage = Passage("Trial", "New customers can try it free of charge for 7 days.")
    assert len(write("Customers can try it free for seven days.", passage)[1].marks) == 1
    assert write("Customers can try it free for eight days.", passage)[1].marks == []


def test_what_is_left_out_supports_nothing() -> None:
    writer = CitationWriter([CODES], left_out={1})
    assert (
        writer.feed("E31 means the scan memory is full.") + writer.finish() == "E31 means the scan memory is full."
    )


def test_a_text_without_an_end_is_read_once() -> None:
    """What was written so far was copied at each character: a million took minutes."""
    began = time.process_time()
    text, _ = write("word " * 200_000, CODES, piece=5)
    assert len(text) == 1_000_000
    assert time.process_time() - began < 6


def test_a_thousand_sentences_are_compared_with_fifty_passages_in_a_moment() -> None:
    chance = random.Random(5)
    words = [f"{one}{two}{three}" for one in "bdfgklmn" for two in "aeiou" for three in "lmnr"]

    def sentences(count: int) -> str:
        return " ".join(" ".join(chance.choices(words, k=12)).capitalize() + "." for _ in range(count))

    passages = [Passage("", sentences(20)) for _ in range(50)]
    answer = sentences(999) + " " + passages[7].text
    writer = CitationWriter(passages)
    began = time.process_time()
    writer.feed(answer)
    writer.finish()
    assert time.process_time() - began < 0.6
    assert 8 in {mark.support.number for mark in writer.marks}


# Markers that the model writes itself


NORMANDY = Passage("Normandy", "The first ruler was Rollo, a Viking. He died in 930.", start=40)
FULL = "E31 means the scan memory is full."


@pytest.mark.parametrize(
    "said",
    [f"{FULL} [2]", f"{FULL}[2]", f"{FULL[:-1]} [2].", f"{FULL}  [2]", f"{FULL} [2][2]", f"{FULL[:-1]} [2]. [2]"],
)
@pytest.mark.parametrize("behind", ["", " Goodbye.", "\n\nGoodbye."])
def test_a_models_own_marker_is_not_written_twice(said: str, behind: str) -> None:
    text, writer = write(f"{said}{behind}", TRIAL, CODES)
    assert text == f"{FULL} [2]{behind}"
    assert [mark.support.number for mark in writer.marks] == [2]
    assert text[writer.marks[0].answer_start : writer.marks[0].answer_end] == " [2]"


def test_a_models_own_marker_chooses_among_passages_that_support_the_sentence() -> None:
    assert write(FULL, CODES, CODES)[0] == f"{FULL} [1]"
    assert write(f"{FULL} [2]", CODES, CODES)[0] == f"{FULL} [2]"
    text, writer = write(f"{FULL} [2] [1]", CODES, CODES)
    assert text == f"{FULL} [2] [1]"
    assert [mark.support.number for mark in writer.marks] == [2, 1]


def test_a_models_own_marker_is_shown_only_if_the_passage_supports_the_sentence() -> None:
    unsupported = "Bananas grow in the tropics and are yellow."
    for number in (1, 2, 7, 99):
        text, writer = write(f"{unsupported} [{number}] Yes.", TRIAL, CODES)
        assert text == f"{unsupported} Yes."
        assert writer.marks == []
    # Another passage than the one named supports it.
    assert write(f"{FULL} [1] Yes.", TRIAL, CODES)[0] == f"{FULL} [2] Yes."
    assert write("The free trial of the Heron plan lasts 30 days. [1]", TRIAL)[1].marks == []


def test_a_short_answer_is_cited_where_the_model_names_a_passage_that_holds_it() -> None:
    text, writer = write("Rollo [2]", CODES, NORMANDY)
    assert text == "Rollo [2]"
    (mark,) = writer.marks
    assert (mark.support.start, mark.support.end) == (40, 40 + len("The first ruler was Rollo, a Viking."))
    assert write("Rollo [2].", CODES, NORMANDY)[0] == "Rollo. [2]"
    assert write("1. Rollo [2]\n2. Ragnar [2]\n", CODES, NORMANDY)[0] == "1. Rollo [2]\n2. Ragnar\n"


@pytest.mark.parametrize("said", ["Rollo [1]", "Rollo [3]", "Rollo", "Ragnar [2]", "Viking Rollo [2]", "No [2]"])
def test_a_short_answer_has_no_citation_by_any_other_passage(said: str) -> None:
    text, writer = write(said, CODES, NORMANDY)
    assert text == said.partition(" [")[0]
    assert writer.marks == []


@pytest.mark.parametrize(
    "said",
    [
        "In [2] it is said that all went well.",
        "The first item is names[1]\nand so on",
        "See [2](http://x.example) for more.",
        "The answer of f(x) is a[0].",
        "```\nreturn [1]\n```\n",
        "It ended in 930. [1930] was a year, too.",
    ],
)
def test_what_is_no_marker_stays_in_the_text(said: str) -> None:
    assert write(said, CODES, NORMANDY)[0] == said


def test_without_markers_written_the_models_own_stay_and_tell_what_is_cited() -> None:
    writer = CitationWriter([CODES, NORMANDY], write_markers=False)
    assert writer.feed("Rollo [") + writer.feed("2]") + writer.finish() == "Rollo [2]"
    assert [mark.support.number for mark in writer.marks] == [2]
    assert (writer.marks[0].answer_start, writer.marks[0].answer_end) == (9, 9)


def test_of_a_stream_no_more_is_held_back_than_a_marker_may_begin_with() -> None:
    writer = CitationWriter([CODES])
    pieces = ("E31", " means", " it.", " ", "[", "1", "]", " Yes", ".")
    assert [writer.feed(piece) for piece in pieces] == ["E31", " means", " it.", "", "", "", "", " Yes", "."]
    assert writer.feed(" " * 1000)[:900] == " " * 900
    assert writer.feed("[1]" * 1000).endswith("[1]" * 900)


PIECES = [
    FULL,
    FULL[:-1],
    "Rollo",
    ".",
    "!",
    " ",
    "  ",
    "\n",
    "[1]",
    " [2]",
    "[9]",
    "[",
    "]",
    "1",
    "```",
    '"',
    "1.",
    "a",
]


@given(st.lists(st.sampled_from(PIECES), max_size=14), st.integers(1, 9))
def test_own_markers_are_read_alike_in_any_pieces(parts: list[str], piece: int) -> None:
    answer = "".join(parts)
    at_once, whole = write(answer, CODES, NORMANDY)
    streamed, pieces = write(answer, CODES, NORMANDY, piece=piece)
    assert streamed == at_once
    assert pieces.marks == whole.marks
    for mark in whole.marks:
        assert at_once[mark.answer_start : mark.answer_end] == f" [{mark.support.number}]"


@given(st.lists(st.sampled_from(PIECES), max_size=14), st.integers(1, 9))
def test_without_markers_written_any_text_passes_unchanged(parts: list[str], piece: int) -> None:
    answer = "".join(parts)
    writer = CitationWriter([CODES, NORMANDY], write_markers=False)
    for start in range(0, len(answer), piece):
        assert writer.feed(answer[start : start + piece]) == answer[start : start + piece]
    assert writer.finish() == ""
    assert all(0 <= mark.answer_start == mark.answer_end <= len(answer) for mark in writer.marks)
