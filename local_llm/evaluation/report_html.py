"""A report as one HTML file that needs nothing else: no script, no font, no picture from anywhere."""

from html import escape
from typing import Any

from local_llm.evaluation.report_plots import plots_of
from local_llm.evaluation.report_tables import Table, heading, over_time, rules_lines, tables_of

# Even if a name or an answer got through as markup, nothing would run and nothing would be fetched.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1a1a1a }
h1, h2 { line-height: 1.2 } table { border-collapse: collapse; margin: 0.5rem 0; display: block; overflow-x: auto }
th, td { border: 1px solid #ccc; padding: 0.25rem 0.6rem; text-align: left; vertical-align: top }
th { background: #f3f3f3 } svg { max-width: 100%; height: auto } .note { color: #555 }
td.no { background: #fff1f0 } td.text { max-width: 32rem; white-space: pre-wrap }
"""
# Answers that were not accepted are shown, up to so many of each model: all of them are in answers.jsonl.
SHOWN_REJECTED = 20
SHOWN_CHARACTERS = 600


def html(report: dict[str, Any], earlier: list[dict[str, Any]], answers: list[dict[str, Any]]) -> str:
    """`earlier`: reports on the same questions, the oldest first; `answers`: rows of answers.jsonl."""
    tables = tables_of(report) + ([over_time([*earlier, report])] if earlier else [])
    parts = ["<h1>Evaluation</h1>", *(f"<p>{escape(line)}</p>" for line in heading(report))]
    parts.append("<h2>What is accepted</h2><ul>")
    parts += [f"<li>{escape(line)}</li>" for line in rules_lines(report)]
    parts.append("</ul>")
    parts += [f"<h2>{escape(title)}</h2>\n{svg}" for title, svg in plots_of(report, earlier)]
    parts += [_table(table) for table in tables]
    parts.append(_rejected(answers))
    return page("Evaluation", "\n".join(parts))


def history_html(reports: list[dict[str, Any]]) -> str:
    """Reports on the same questions, the oldest first."""
    from local_llm.evaluation.report_plots import over_time as plot

    return page(
        "Evaluations over time", f"<h1>Evaluations over time</h1>\n{plot(reports)}\n{_table(over_time(reports))}"
    )


def page(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in table.columns)
    rows = "\n".join("<tr>" + "".join(f"<td>{escape(one)}</td>" for one in row) + "</tr>" for row in table.rows)
    note = f'\n<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f"<h2>{escape(table.title)}</h2>\n<table><tr>{head}</tr>\n{rows}</table>{note}"


def _rejected(answers: list[dict[str, Any]]) -> str:
    shown: dict[str, list[dict[str, Any]]] = {}
    for one in answers:
        if not one["accepted"]:
            shown.setdefault(one["profile"], []).append(one)
    parts = ["<h2>Answers that were not accepted</h2>"]
    for name, rows in shown.items():
        more = f", the first {SHOWN_REJECTED}" if len(rows) > SHOWN_REJECTED else ""
        parts.append(f"<details><summary>{escape(name)}: {len(rows)}{more}</summary><table>")
        parts.append("<tr><th>question</th><th>answer</th><th>right</th><th>why not</th></tr>")
        parts += [_answer(one) for one in rows[:SHOWN_REJECTED]]
        parts.append("</table></details>")
    return "\n".join(parts if shown else [*parts, "<p>None.</p>"])


def _answer(one: dict[str, Any]) -> str:
    texts = (one["question"], one["text"], " / ".join(one["answers"]))
    cells = "".join(f'<td class="text">{escape(text[:SHOWN_CHARACTERS])}</td>' for text in texts)
    return f'<tr>{cells}<td class="no">{escape("; ".join(one["reasons"]))}</td></tr>'
