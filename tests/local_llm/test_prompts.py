from dataclasses import dataclass

import pytest

from local_llm.prompts import INSTRUCTION, context_prompt, with_context


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
