"""A fixed general text, whose loss before and after a run tells what the run has cost the model elsewhere."""

from pathlib import Path
from typing import Any

from training.examples.labels import Row

TEXT = Path(__file__).parent / "probe.txt"


def probe_rows(tokenizer: Any) -> list[Row]:
    """One row a paragraph, every token labelled, without a chat template: plain language."""
    paragraphs = TEXT.read_text(encoding="utf-8").strip().split("\n\n")
    rows = []
    for number, paragraph in enumerate(paragraphs, start=1):
        tokens = tokenizer(" ".join(paragraph.split()), add_special_tokens=True)["input_ids"]
        rows.append(Row(number, tokens, list(tokens)))
    return rows
