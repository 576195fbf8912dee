"""A report in Markdown."""

from typing import Any

from local_llm.evaluation.report_tables import Table, heading, over_time, rules_lines, tables_of

_SPECIAL = str.maketrans({one: f"\\{one}" for one in "\\`*_{}[]<>#|~"})


def markdown(report: dict[str, Any], earlier: list[dict[str, Any]]) -> str:
    """`earlier`: reports on the same questions, the oldest first."""
    tables = tables_of(report) + ([over_time([*earlier, report])] if earlier else [])
    parts = ["# Evaluation", *(escaped(line) for line in heading(report)), "## What is accepted"]
    parts.append("\n".join(f"- {escaped(line)}" for line in rules_lines(report)))
    for table in tables:
        parts += [f"## {table.title}", _table(table)]
        if table.note:
            parts.append(escaped(table.note))
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Names and rules are the user's own words: none of them is to be read as a mark."""
    return " ".join(text.split()).translate(_SPECIAL)


def _table(table: Table) -> str:
    lines = [_row(table.columns), _row(["---"] * len(table.columns), mark=True)]
    return "\n".join([*lines, *(_row(row) for row in table.rows)])


def _row(cells: Any, *, mark: bool = False) -> str:
    return "| " + " | ".join(cell if mark else escaped(cell) for cell in cells) + " |"
