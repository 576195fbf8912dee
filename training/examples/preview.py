"""A look at training rows before they are trained: every token decoded, the trained ones coloured."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from training.examples.labels import IGNORED, PreferenceRow, Row

AnyRow = Row | PreferenceRow

TRAINED, CONTEXT, REJECTED = "bold green", "dim", "bold red"


def describe(tokenizer: Any, rows: Sequence[AnyRow], count: int) -> dict[str, Any]:
    """The first `count` rows in pieces, and counts over all of them; all rows are of one method."""
    shown = [_description(tokenizer, row) for row in rows[:count]]
    return {"examples": len(rows), **totals(rows), "rows": shown}


def draw(tokenizer: Any, rows: Sequence[AnyRow], count: int, console: Console | None = None) -> None:
    """The same for people, on stdout: trained and preferred green, rejected red, the rest dim."""
    console = console or Console(highlight=False)
    for row in rows[:count]:
        cut = f", {row.cut_tokens} cut off" if row.cut_tokens else ""
        console.print(Text(f"line {row.line}: {_lengths(row)}{cut}", style="bold"))
        console.print(_coloured(tokenizer, row))
    counts = totals(rows)
    cut = f"; {counts['cut_tokens']:,} tokens cut off {counts['cut_rows']} of them" if counts["cut_rows"] else ""
    console.print(
        f"{len(rows)} examples, {counts['tokens']:,} tokens, {counts['trained_tokens']:,} of them trained; "
        f"the longest has {counts['longest_tokens']}{cut}"
    )


def pieces(tokenizer: Any, row: Row) -> Iterator[tuple[str, bool]]:
    """Runs of tokens that are all trained or all not, decoded with their special tokens."""
    pairs = zip(row.input_ids, row.labels, strict=True)
    for trained, run in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        yield tokenizer.decode([token for token, _ in run]), trained


def totals(rows: Sequence[AnyRow]) -> dict[str, int]:
    """A preference counts its prompt with each answer, as both pass through the model; its answers are trained."""
    lengths = [length for row in rows for length in _sequence_lengths(row)]
    return {
        "tokens": sum(lengths),
        "trained_tokens": sum(_trained_tokens(row) for row in rows),
        "longest_tokens": max(lengths),
        "cut_rows": sum(row.cut_tokens > 0 for row in rows),
        "cut_tokens": sum(row.cut_tokens for row in rows),
    }


def _sequence_lengths(row: AnyRow) -> list[int]:
    if isinstance(row, Row):
        return [len(row.input_ids)]
    return [len(row.prompt_ids) + len(answer) for answer in (row.chosen_ids, row.rejected_ids)]


def _trained_tokens(row: AnyRow) -> int:
    return row.trained_tokens if isinstance(row, Row) else len(row.chosen_ids) + len(row.rejected_ids)


def _description(tokenizer: Any, row: AnyRow) -> dict[str, Any]:
    if isinstance(row, Row):
        counts = {"tokens": len(row.input_ids), "trained_tokens": row.trained_tokens}
        texts: dict[str, Any] = {
            "pieces": [{"text": text, "trained": trained} for text, trained in pieces(tokenizer, row)]
        }
    else:
        parts = {"prompt": row.prompt_ids, "preferred": row.chosen_ids, "rejected": row.rejected_ids}
        counts = {f"{name}_tokens": len(tokens) for name, tokens in parts.items()}
        texts = {name: tokenizer.decode(tokens) for name, tokens in parts.items()}
    return {"line": row.line, **counts, "cut_tokens": row.cut_tokens, **texts}


def _lengths(row: AnyRow) -> str:
    if isinstance(row, Row):
        return f"{len(row.input_ids)} tokens, {row.trained_tokens} trained"
    return f"{len(row.prompt_ids)} tokens, {len(row.chosen_ids)} preferred, {len(row.rejected_ids)} rejected"


def _coloured(tokenizer: Any, row: AnyRow) -> Text:
    if isinstance(row, Row):
        styled = [(text, TRAINED if trained else CONTEXT) for text, trained in pieces(tokenizer, row)]
    else:
        parts = ((row.prompt_ids, CONTEXT), (row.chosen_ids, TRAINED), (row.rejected_ids, REJECTED))
        styled = [(tokenizer.decode(tokens), style) for tokens, style in parts]
    text = Text()
    for piece, style in styled:
        text.append(piece.replace("\x1b", "␛"), style=style)  # a file must not steer the terminal
    return text
