"""A look at training rows before they are trained: every token decoded, the trained ones coloured."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from training.labels import IGNORED, Row

TRAINED, CONTEXT = "bold green", "dim"


def describe(tokenizer: Any, rows: Sequence[Row], count: int) -> dict[str, Any]:
    """The first `count` rows in pieces, and counts over all of them."""
    shown = [
        {
            "line": row.line,
            "tokens": len(row.input_ids),
            "trained_tokens": row.trained_tokens,
            "pieces": [{"text": text, "trained": trained} for text, trained in pieces(tokenizer, row)],
        }
        for row in rows[:count]
    ]
    return {"examples": len(rows), **totals(rows), "rows": shown}


def draw(tokenizer: Any, rows: Sequence[Row], count: int) -> None:
    """The same for people, on stdout."""
    console = Console(highlight=False)
    for row in rows[:count]:
        header = f"line {row.line}: {len(row.input_ids)} tokens, {row.trained_tokens} trained"
        console.print(Text(header, style="bold"))
        text = Text()
        for piece, trained in pieces(tokenizer, row):
            text.append(piece, style=TRAINED if trained else CONTEXT)
        console.print(text)
    counts = totals(rows)
    console.print(
        f"{len(rows)} examples, {counts['tokens']:,} tokens, {counts['trained_tokens']:,} of them trained; "
        f"the longest has {counts['longest_tokens']}"
    )


def pieces(tokenizer: Any, row: Row) -> Iterator[tuple[str, bool]]:
    """Runs of tokens that are all trained or all not, decoded with their special tokens."""
    pairs = zip(row.input_ids, row.labels, strict=True)
    for trained, run in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        yield tokenizer.decode([token for token, _ in run]), trained


def totals(rows: Sequence[Row]) -> dict[str, int]:
    lengths = [len(row.input_ids) for row in rows]
    return {
        "tokens": sum(lengths),
        "trained_tokens": sum(row.trained_tokens for row in rows),
        "longest_tokens": max(lengths),
    }
