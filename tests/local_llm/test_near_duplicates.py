"""Questions that are the same but for a word or its form."""

from local_llm.near_duplicates import NearDuplicates, grouped

QUESTION = "What are the symptoms of adult acute lymphoblastic leukemia in the first two weeks of the disease?"


def test_case_and_punctuation_make_no_other_question() -> None:
    assert NearDuplicates([QUESTION]).of(QUESTION.upper().replace("?", " ??")) == [0]


def test_a_word_more_is_a_near_duplicate() -> None:
    assert NearDuplicates(["another one altogether", QUESTION]).of(QUESTION + " please") == [1]


def test_another_subject_is_another_question() -> None:
    """Questions of one form about two diseases are two questions."""
    known = NearDuplicates(["What are the symptoms of Adult Acute Lymphoblastic Leukemia ?"])
    assert known.of("What are the symptoms of Childhood Acute Lymphoblastic Leukemia ?") == []


def test_the_likest_comes_first() -> None:
    assert NearDuplicates([QUESTION + " now", QUESTION]).of(QUESTION) == [1, 0]


def test_short_texts_are_compared_by_words() -> None:
    known = NearDuplicates(["opening hours"])
    assert known.of("Opening hours?") == [0]
    assert known.of("opening") == []


def test_nothing_resembles_no_words() -> None:
    assert NearDuplicates(["...", ""]).of("?") == []


def test_groups_go_by_their_first() -> None:
    assert grouped(["opening hours", QUESTION, "Opening hours!", QUESTION + " please"]) == [0, 1, 0, 1]
