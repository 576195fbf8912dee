"""Writes the rows of training.jsonl that hold a context again, in the words that the server uses now.

    python examples/quillon/reword_contexts.py

To be run when local_llm/prompts.py has changed: an adapter should be trained to read what it will be given.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from local_llm.prompts import context_prompt

TRAINING = Path(__file__).parent / "training.jsonl"

_PROMPT = re.compile(r".*?\n\nContext:\n(?P<context>.*)\n\nQuestion: (?P<question>.*)", re.DOTALL)
_NEXT_PASSAGE = re.compile(r"\n\n(?=\[\d+\] )")


@dataclass(frozen=True)
class Passage:
    title: str
    text: str
    heading: str = ""


def reworded(content: str) -> str:
    """A user's message: the same, if it holds no context."""
    found = _PROMPT.fullmatch(content)
    if found is None:
        return content
    passages = []
    for block in _NEXT_PASSAGE.split(found["context"]):
        first, _, text = block.partition("\n")
        passages.append(Passage(first.partition("] ")[2], text))
    return context_prompt(found["question"], passages)


def main() -> None:
    lines = []
    for line in TRAINING.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for message in row["messages"]:
            if message["role"] == "user":
                message["content"] = reworded(message["content"])
        lines.append(json.dumps(row, ensure_ascii=False))
    TRAINING.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
