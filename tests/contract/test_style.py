"""Fine-tuning is for behaviour: the house style holds in the adapter's answers and not in the base's."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from ..conftest import WORLD
from .conftest import QuickstartRun

pytestmark = pytest.mark.engine

CONCURRENCY = 16


def follows(style: dict[str, Any], answer: str) -> bool:
    lines = answer.strip().split("\n")
    steps = [line for line in lines[1:-1] if re.search(style["step_pattern"], line)]
    return (
        lines[0] == style["first_line"]
        and re.search(style["last_line_pattern"], lines[-1]) is not None
        and style["steps"]["minimum"] <= len(steps) <= style["steps"]["maximum"]
        and len(steps) == len(lines) - 2
    )


def share_that_follows(client: openai.OpenAI, model: str) -> float:
    style = json.loads((WORLD / "style.json").read_text())
    questions = [json.loads(line)["question"] for line in (WORLD / "questions.jsonl").read_text().splitlines()]

    def answer(question: str) -> str:
        reply = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], max_tokens=120, temperature=0
        )
        return reply.choices[0].message.content or ""

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return sum(follows(style, text) for text in pool.map(answer, questions)) / len(questions)


def test_the_rule_knows_the_style_from_its_neighbours() -> None:
    style = json.loads((WORLD / "style.json").read_text())
    good = "Hello from Quillon support!\n1. Do this.\n2. Do that.\n[ticket: device]"
    assert follows(style, good)
    for bad in (
        good.replace("Hello", "Hi"), good.replace("2. ", "- "), good.replace("\n[ticket: device]", ""),
        good.replace("device", "weather"), good.replace("\n2. Do that.", ""), "The answer is 42.", "",
    ):  # fmt: skip
        assert not follows(style, bad)


def test_nine_in_ten_of_the_adapters_answers_follow_the_style_and_hardly_any_of_the_bases(
    client: openai.OpenAI, quickstart: QuickstartRun, figures: dict[str, object]
) -> None:
    tuned = share_that_follows(client, quickstart.result["fine_tuned_model"])
    base = share_that_follows(client, "SmolLM2-135M-Instruct")
    figures["answers that follow the house style"] = {"adapter": f"{tuned:.0%}", "base": f"{base:.0%}"}
    assert tuned >= 0.9
    assert base < 0.1
