"""The tables of `local-llm cost` for people."""

from collections.abc import Sequence

from local_llm.cli.output import emit_table
from local_llm.costs.article import Checked
from local_llm.costs.evaluations import AnswerEvidence
from local_llm.costs.evidence import Evidence
from local_llm.costs.figure import Figure
from local_llm.costs.row import Row


class Sources:
    """Run ids, numbered as they are first named."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def mark(self, figure: Figure) -> str:
        """[1]: measured, by run 1; assumed: not; nothing: a listed price."""
        if figure.standing == "assumed":
            return " assumed"
        if figure.standing == "listed" or (figure.expected == 0 and not figure.source.startswith("led_")):
            return ""
        number = self.numbers.setdefault(figure.source, len(self.numbers) + 1)
        return f" [{number}]"


def comparison_tables(rows: Sequence[Row], evidence: Evidence, assumptions: Sequence[str]) -> None:
    sources = Sources()
    columns = [
        "strategy",
        "where",
        "set-up",
        "a query",
        "latency",
        "accepted",
        "an update",
        "a month",
        "citations",
        "data needed",
    ]
    emit_table([_cells(row, sources) for row in rows], columns, as_json=False, empty="")
    months = [_month_cells(row) for row in rows if row.month is not None]
    if months:
        columns = [
            "a month here",
            "machines",
            "utilisation",
            "busy h",
            "paid h",
            "busy",
            "idle",
            "updates",
            "besides",
        ]
        _say("")
        emit_table(months, columns, as_json=False, empty="")
    _section("measured", [f"[{number}] {run}" for run, number in sources.numbers.items()])
    shown = {(row.strategy, row.where) for row in rows}
    evaluated = [one for one in evidence.newest_answers if (one.strategy, one.where) in shown]
    _section("evaluated", [_evaluated(one) for one in evaluated])
    _section("evaluated on other hardware, and not taken", [_evaluated(one) for one in evidence.elsewhere])
    _section(
        "so far on this hardware",
        [f"{s.work}: {s.hours:.3f} h in {s.runs} entries of the ledger" for s in evidence.spent],
    )
    _section("inputs and assumptions", assumptions)
    _section("not known", _missing(rows))


def article_table(checked: Sequence[Checked]) -> None:
    _say("")
    rows = [
        {"the article's": c.factor, "range": c.range, "verdict": c.verdict, "because": c.because} for c in checked
    ]
    emit_table(rows, ["the article's", "range", "verdict", "because"], as_json=False, empty="")


def usd(value: float) -> str:
    """Cents, and of less than a cent three digits."""
    if value and abs(value) < 0.1:
        return f"${value:.3g}" if abs(value) >= 0.0001 else f"${value:.8f}".rstrip("0")
    return f"${value:,.2f}"


def _cells(row: Row, sources: Sources) -> dict[str, str]:
    none = "unpriced" if any(one.reason.startswith("unpriced") for one in row.missing) else "unknown"
    seconds, rate = row.latency_seconds, row.accepted_rate
    return {
        "strategy": row.strategy,
        "where": row.where,
        "set-up": _usd(row.set_up_usd, none, sources),
        "a query": _usd(row.usd_per_query, none, sources),
        "latency": "unknown" if seconds is None else f"{_milliseconds(seconds)}{sources.mark(seconds)}",
        "accepted": "unknown" if rate is None else f"{rate.expected:.1%}{sources.mark(rate)}",
        "an update": _usd(row.update_usd, none, sources),
        "a month": _usd(row.usd_per_month, none, sources),
        "citations": "yes" if row.cites else "no",
        "data needed": row.data_needed,
    }


def _milliseconds(seconds: Figure) -> str:
    p95 = "" if seconds.high == seconds.expected else f" (p95 {seconds.high * 1000:,.0f})"
    return f"{seconds.expected * 1000:,.0f} ms{p95}"


def _evaluated(one: AnswerEvidence) -> str:
    """What the tables have no room for."""
    told = [f"{one.strategy} ({one.where}): {one.run_id}"]
    if one.profile is not None:
        told.append(f"as {one.profile}")
    if one.accepted_rate is not None:
        of = "" if one.questions is None else f" of {one.questions:,} questions"
        told.append(f"{one.accepted_rate:.1%}{of} accepted")
    if one.latency_p50_seconds is not None:
        told.append(f"{one.latency_p50_seconds * 1000:,.0f} ms at p50")
    if one.hardware is not None:
        told.append(f"asked on {one.hardware}")
    if one.input_tokens is not None and one.output_tokens is not None:
        told.append(f"{one.input_tokens:,.0f} tokens in and {one.output_tokens:,.0f} out a question")
    if one.usd_per_accepted_answer is not None:
        told.append(f"{usd(one.usd_per_accepted_answer)} an accepted answer, as it was asked then")
    return ", ".join([*told, *([one.supposed] if one.supposed else [])])


def _usd(figure: Figure | None, none: str, sources: Sources) -> str:
    if figure is None:
        return none
    span = "" if figure.low == figure.high else f" ({usd(figure.low)} to {usd(figure.high)})"
    return f"{usd(figure.expected)}{span}{sources.mark(figure)}"


def _month_cells(row: Row) -> dict[str, str]:
    month = row.month
    assert month is not None
    return {
        "a month here": row.strategy,
        "machines": str(month.machines),
        "utilisation": f"{month.utilisation:.2%}",
        "busy h": f"{month.busy_hours:,.2f}",
        "paid h": f"{month.paid_hours:,.2f}",
        "busy": usd(month.busy_usd.expected),
        "idle": usd(month.idle_usd.expected),
        "updates": usd(month.updates_usd.expected) if row.update_usd is not None else "unknown",
        "besides": usd(month.extras_usd),
    }


def _missing(rows: Sequence[Row]) -> list[str]:
    """Each reason once, with what and whom it concerns."""
    concerned: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows:
        for one in row.missing:
            concerned.setdefault(one.reason, []).append((one.factor, row.strategy, row.where))
    lines = []
    for reason, about in concerned.items():
        factors, strategies, places = (", ".join(dict.fromkeys(column)) for column in zip(*about, strict=True))
        lines.append(f"{factors} of {strategies} ({places}): {reason}")
    return lines


def _section(title: str, lines: Sequence[str]) -> None:
    if lines:
        _say(f"\n{title}:")
    for line in lines:
        _say(f"  {line}")


def _say(text: str) -> None:
    print(text)  # noqa: T201
