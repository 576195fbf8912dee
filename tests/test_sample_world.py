"""The sample world keeps what its README promises."""

import json
import re
from pathlib import Path

import pytest

from examples.quillon.reword_contexts import reworded
from index.documents.parse import parse
from local_llm.embedded import CHAT, locate
from local_llm.prompts import INSTRUCTION

from .conftest import WORLD
from .contract.test_style import follows

STYLE = json.loads((WORLD / "style.json").read_text())
TRAINING = [json.loads(line)["messages"] for line in (WORLD / "training.jsonl").read_text().splitlines()]
QUESTIONS = [json.loads(line) for line in (WORLD / "questions.jsonl").read_text().splitlines()]
# One token of SmolLM2 is four characters of such text; 120 tokens with room for the chat template.
SHORT_CHARACTERS = 400


def has_context(messages: list[dict[str, str]]) -> bool:
    return "Context:\n" in messages[0]["content"]


def words(text: str) -> str:
    return " ".join(re.sub(r"[*_`|]", " ", text).split())


def test_there_are_documents_of_four_kinds() -> None:
    kinds = [path.suffix for path in (WORLD / "documents").iterdir()]
    assert len(kinds) >= 40
    assert {".md", ".html", ".pdf", ".docx"} <= set(kinds)


def test_every_answer_in_the_training_file_follows_the_house_style() -> None:
    assert len(TRAINING) >= 200
    assert [messages for messages in TRAINING if not follows(STYLE, messages[-1]["content"])] == []


def test_the_examples_are_short_and_distinct() -> None:
    plain = [messages for messages in TRAINING if not has_context(messages)]
    assert len({messages[0]["content"] for messages in TRAINING}) == len(TRAINING)
    assert len(plain) >= 200
    assert max(sum(len(message["content"]) for message in messages) for messages in plain) <= SHORT_CHARACTERS


def test_examples_with_context_are_worded_as_the_server_words_them() -> None:
    contexts = [messages[0]["content"] for messages in TRAINING if has_context(messages)]
    assert len(contexts) >= 40
    for prompt in contexts:
        assert prompt.startswith(f"{INSTRUCTION}\n\nContext:\n[1] ")
        assert "\n\nQuestion: " in prompt
        assert reworded(prompt) == prompt, "run: python examples/quillon/reword_contexts.py"


def test_sixty_questions_are_held_out_and_their_documents_hold_the_answer(tmp_path: Path) -> None:
    assert len(QUESTIONS) == 60
    trained = {messages[0]["content"] for messages in TRAINING}
    texts: dict[str, str] = {}
    for question in QUESTIONS:
        assert question["question"] not in trained
        for name in question["documents"]:
            if name not in texts:
                texts[name] = words(parse(WORLD / "documents" / name, name).text)
        assert any(words(question["evidence"]) in texts[name] for name in question["documents"]), question["id"]


def test_the_embedded_chat_model_lies_where_it_is_looked_for() -> None:
    assert locate(CHAT).stat().st_size > 50_000_000


@pytest.mark.parametrize("answer", ["", "Hello from Quillon support!", "[ticket: device]"])
def test_an_empty_answer_follows_no_style(answer: str) -> None:
    assert not follows(STYLE, answer)
