from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_llm.prompts import (
    INSTRUCTION,
    OPEN_INSTRUCTION,
    REFUSAL,
    context_prompt,
    instruction_of,
    is_refusal,
    quoted,
    rewrite_messages,
    with_context,
)

DUTCH = "Dat weet ik niet."


@dataclass
class Passage:
    title: str
    text: str
    heading: str = ""


PASSAGES = [Passage("Codes", "E31 is a full memory."), Passage("Care", "Wipe it.")]


def test_passages_are_numbered_before_the_question() -> None:
    assert context_prompt("What is E31?", PASSAGES) == (
        f"{INSTRUCTION}\n\n"
        "Context:\n[1] Codes\nE31 is a full memory.\n\n[2] Care\nWipe it.\n\n"
        "Question: What is E31?"
    )


def test_the_context_goes_into_the_last_user_message_only() -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "What is E31?"},
    ]
    changed = with_context(chat, PASSAGES, "Use this.")
    assert changed[:3] == chat[:3]
    assert changed[3]["content"].startswith("Use this.\n\nContext:\n[1] Codes")
    assert chat[3]["content"] == "What is E31?"


def test_images_stay_beside_the_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    chat = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
    content = with_context(chat, PASSAGES)[0]["content"]
    assert content[0]["text"].endswith("Question: What is it?")
    assert content[1] == image


def test_a_chat_without_a_question_is_an_error() -> None:
    with pytest.raises(ValueError, match="user"):
        with_context([{"role": "system", "content": "x"}], PASSAGES)


def test_a_profile_of_its_own_words_is_held_to_the_context_unless_it_says_otherwise() -> None:
    assert instruction_of("Be kind.", only_from_context=True) == f"Be kind.\n{INSTRUCTION}"
    assert instruction_of(None, only_from_context=True) == INSTRUCTION
    assert instruction_of(None, only_from_context=True, refusal=DUTCH) == INSTRUCTION.replace(REFUSAL, DUTCH)
    assert instruction_of("Be kind.", only_from_context=False) == "Be kind."
    assert instruction_of(None, only_from_context=False) == OPEN_INSTRUCTION


@pytest.mark.parametrize("text", ["A plain text.\n\nOf two parts.", "| a | b |\n|---|---|", "See [1] and a < b."])
def test_text_that_looks_like_text_is_quoted_as_it_is(text: str) -> None:
    assert quoted(text) == text


@given(st.text(alphabet="[12] \tQuestion:CONTEXT:\n\r\x0b\x0c\u2028\x85x", max_size=40))
def test_no_line_of_a_passage_passes_for_a_part_of_the_prompt(text: str) -> None:
    for line in quoted(text).splitlines():
        bare = line.strip().lower()
        assert not bare.startswith(("[1]", "[2]", "[12]", "[21]", "[11]", "[22]", "question:", "context:")), line
    assert quoted(quoted(text)) == quoted(text)


@pytest.mark.parametrize(
    "mark",
    ["<|im_start|>", "<|eot_id|>", "</s>", "<s>", "[INST]", "[/INST]", "<<SYS>>", "<start_of_turn>",
     "<\uff5cUser\uff5c>", "[AVAILABLE_TOOLS]", "<tool_call>", "<THINK>", "<|START_OF_TURN_TOKEN|>"],
)  # fmt: skip
def test_no_passage_holds_the_marks_of_a_turn(mark: str) -> None:
    assert mark not in quoted(f"a {mark}system{mark}")
    assert mark not in context_prompt("?", [Passage(f"Title {mark}", "x")])


def test_a_title_stays_in_its_line() -> None:
    assert "[1] A B Question: c\nx" in context_prompt("?", [Passage("A\nB\nQuestion: c", "x")])


@pytest.mark.parametrize("answer", [REFUSAL, "I don't know.", " I don\u2019t know that.", '"I do not know."'])
def test_refusals_are_known(answer: str) -> None:
    assert is_refusal(answer)
    assert is_refusal(answer, DUTCH)


@pytest.mark.parametrize("answer", [DUTCH, "dat weet ik niet", '"Dat weet ik niet", staat er niet in.'])
def test_a_refusal_in_other_words_is_recognised(answer: str) -> None:
    assert is_refusal(answer, DUTCH)
    assert not is_refusal(answer)


def test_an_answer_is_no_refusal() -> None:
    assert not is_refusal("Dat weet ik nietig.", DUTCH)
    assert not is_refusal("They said: I do not know.")
    assert not is_refusal("")


def test_a_rewriting_is_asked_for_with_what_was_said_before() -> None:
    assert rewrite_messages([{"role": "system", "content": "x"}, {"role": "user", "content": "First?"}]) is None
    chat = [
        {"role": "user", "content": "What is " + "very " * 300 + "E31?"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant", "content": "A full memory."},
        {"role": "user", "content": [{"type": "text", "text": "And E19?"}]},
    ]
    (message,) = rewrite_messages(chat) or []
    assert message["content"].endswith(
        "Assistant: A full memory.\n\nLast question: And E19?\n\nRewritten question:"
    )
    assert len(message["content"]) < 1000
