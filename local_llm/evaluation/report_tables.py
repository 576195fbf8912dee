"""The tables of a report, from its JSON: Markdown, HTML and the command line show the same ones."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

# What measures are called, and in which order they are shown.
HEADINGS = {
    "accepted": "accepted",
    "exact_match": "exact match",
    "contains": "contains the answer",
    "f1": "F1",
    "rouge_l": "ROUGE-L",
    "json_valid": "valid JSON",
    "schema_match": "matches the schema",
    "json_equal": "equal JSON",
    "style": "keeps the style",
    "citation_precision": "citation precision",
    "citation_recall": "citation recall",
    "refused_rightly": "refused rightly",
    "refused_wrongly": "refused wrongly",
    "judge": "judge (1 to 5)",
    "ttft_seconds": "seconds to the first token",
    "total_seconds": "seconds in all",
}
UNTOLD = "cannot be told"


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables_of(report: dict[str, Any]) -> list[Table]:
    shown = [quality(report), speed(report), money(report), differences(report)]
    tags = by_tag(report)
    return [*shown, tags] if tags.rows else shown


def quality(report: dict[str, Any]) -> Table:
    profiles = report["profiles"]
    found = {name for one in profiles.values() for name in one["quality"]}
    measures = [name for name in HEADINGS if name in found]
    rows = []
    for name, one in profiles.items():
        estimates = [one["accepted_share"], *(one["quality"].get(measure) for measure in measures)]
        cells = [estimate(each, share=True) for each in estimates[:1]]
        cells += [estimate(each) for each in estimates[1:]]
        rows.append((name, one["strategy"], f"{one['accepted']} of {one['questions']}", *cells))
    columns = ("model", "strategy", "accepted", "share", *(HEADINGS[one] for one in measures))
    note = "In brackets: 95 % by bootstrap over the questions, nearly equal ones together."
    failed = [f"{name}: {one['failed']}" for name, one in profiles.items() if one["failed"]]
    if failed:
        note += f" Failed answers, which count as empty ones: {', '.join(failed)}."
    unjudged = [f"{name}: {one['unjudged']}" for name, one in profiles.items() if one["unjudged"]]
    if unjudged:
        note += f" Answers without a judgement that could be read: {', '.join(unjudged)}."
    return Table("Quality", columns, tuple(rows), note)


def speed(report: dict[str, Any]) -> Table:
    rows = []
    for name, one in report["profiles"].items():
        seconds = [
            one[kind][share] for kind in ("ttft_seconds", "total_seconds") for share in ("p50", "p95", "p99")
        ]
        rows.append((name, *("-" if value is None else f"{value:.3f}" for value in seconds)))
    columns = ("model", *(f"{kind} {share}" for kind in ("TTFT", "total") for share in ("p50", "p95", "p99")))
    note = (
        f"Seconds, streamed, {report['concurrency']} questions at once, by the asker's clock; percentiles by "
        f"{report['percentiles']}. TTFT: to the first piece of text. One question before them is not counted."
    )
    return Table("Speed", columns, tuple(rows), note)


def money(report: dict[str, Any]) -> Table:
    rows = []
    for name, one in report["profiles"].items():
        tokens = [one["input_tokens"], one["output_tokens"]]
        told = ["-" if count is None else f"{count:,}" for count in tokens]
        rows.append((name, *told, one["cost_per_question"], one["cost_per_accepted_answer"], one["cost_basis"]))
    columns = ("model", "tokens in", "tokens out", "a question", "an accepted answer", "found by")
    return Table("Cost", columns, tuple(rows), "Asking only: no training, no indexing, no judge.")


def differences(report: dict[str, Any]) -> Table:
    order = {name: at for at, name in enumerate(HEADINGS)}
    found = sorted(report["differences"], key=lambda one: order.get(one["measure"], len(order)))
    rows = tuple(
        (
            HEADINGS.get(one["measure"], one["measure"]),
            f"{one['one']} - {one['other']}",
            signed(one),
            f"{one['cases']}",
            f"real: {one['better']} is better" if one["better"] else one["verdict"],
        )
        for one in found
    )
    note = (
        "Paired, question by question. Real: the 95 % interval leaves out zero, so of twenty pairs of equals one "
        "would look so. Fewer than six questions tell nothing."
    )
    return Table("Differences", ("measure", "pair", "difference", "questions", "verdict"), rows, note)


def by_tag(report: dict[str, Any]) -> Table:
    profiles = report["profiles"]
    tags = sorted({tag for one in profiles.values() for tag in one["by_tag"]})
    rows = []
    for tag in tags:
        cells = [one["by_tag"].get(tag) for one in profiles.values()]
        rows.append(
            (tag, *("-" if each is None else f"{each['accepted']} of {each['questions']}" for each in cells))
        )
    return Table("Accepted by tag", ("tag", *profiles), tuple(rows))


def over_time(reports: list[dict[str, Any]]) -> Table:
    """`reports` on the same questions, the oldest first."""
    newest = reports[-1]["rules_sha256"]
    rows = []
    for report in reports:
        for name, one in report["profiles"].items():
            share, f1 = one["accepted_share"], one["quality"].get("f1")
            p50 = one["total_seconds"]["p50"]
            rows.append(
                (
                    when(report),
                    report["run"],
                    name,
                    estimate(share, share=True),
                    estimate(f1),
                    "-" if p50 is None else f"{p50:.3f}",
                    one["cost_per_accepted_answer"],
                    "" if report["rules_sha256"] == newest else "other rules",
                )
            )
    columns = ("when", "run", "model", "accepted", "F1", "total p50", "an accepted answer", "")
    return Table("Over time", columns, tuple(rows), "Evaluations of the same questions.")


def estimate(value: dict[str, Any] | None, *, share: bool = False) -> str:
    if value is None:
        return "-"
    mean, low, high = value["mean"], value["low"], value["high"]
    shown = f"{mean:.1%}" if share else f"{mean:.3f}"
    if low is None:
        return f"{shown} [{UNTOLD}]"
    return f"{shown} [{low:.1%}, {high:.1%}]" if share else f"{shown} [{low:.3f}, {high:.3f}]"


def signed(one: dict[str, Any]) -> str:
    if one["low"] is None:
        return f"{one['mean']:+.3f} [{UNTOLD}]"
    return f"{one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"


def when(report: dict[str, Any]) -> str:
    return datetime.fromtimestamp(report["created_at"], UTC).strftime("%Y-%m-%d %H:%M UTC")


def heading(report: dict[str, Any]) -> list[str]:
    """Under what the figures were taken, in lines."""
    questions, machine = report["questions"], report["hardware"]
    lines = [
        f"Run {report['run']}, {when(report)}, Local LLM {report['version']}.",
        f"{questions['count']} questions of {questions['file']} (sha256 {questions['sha256'][:12]}), "
        f"{report['concurrency']} at once, at most {report['max_tokens']} tokens an answer, "
        f"temperature {report['temperature']:g}.",
        f"Asked from {machine['name']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB.",
    ]
    if questions["seen_in_training"]:
        lines.append(
            f"WARNING: {len(questions['seen_in_training'])} questions were trained on: what is said to these tells "
            "nothing of what was learnt."
        )
    before = {name: one["from_before"] for name, one in report["profiles"].items() if one["from_before"]}
    if before:
        told = ", ".join(f"{name} {count}" for name, count in before.items())
        lines.append(f"Answers kept from earlier evaluations of the same models, asked the same way: {told}.")
    return lines


def rules_lines(report: dict[str, Any]) -> list[str]:
    """The rule of acceptance, one statement a line."""
    rules, lines = report["rules"], list[str]()
    right = {name: value for name, value in rules["right"].items() if value}
    must = [name for name, value in rules["must"].items() if value]
    if right:
        told = ", ".join(name if value is True else f"{name} = {value:g}" for name, value in right.items())
        lines.append(f"Right by any of: {told}.")
    if must:
        lines.append(f"And all of, where they apply: {', '.join(must)}.")
    style = {name: value for name, value in rules["style"].items() if value}
    lines += [f"Style: {name} = {value!r}." for name, value in style.items()]
    lines.append("A question that cannot be answered is to be refused, and no other.")
    return lines
