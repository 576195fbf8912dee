"""The pictures of a report."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from local_llm.evaluation.report_tables import HEADINGS, when
from local_llm.plots import as_svg, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Measures between 0 and 1: what else there is has a scale of its own.
SHARES = [name for name in HEADINGS if name not in ("accepted", "judge", "ttft_seconds", "total_seconds")]
BAR = 0.8
LINE = 12  # characters of a name under a bar


def plots_of(report: dict[str, Any], earlier: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Titles and `<svg>` elements, of what there is to be shown."""
    found = [("Accepted answers", accepted(report)), ("Quality", quality(report))]
    if any(one["total_seconds"]["p50"] is not None for one in report["profiles"].values()):
        found.append(("Seconds", seconds(report)))
    if any(one["usd_per_accepted_answer"] is not None for one in report["profiles"].values()):
        found.append(("Dollars an accepted answer", cost(report)))
    if earlier:
        found.append(("Accepted answers over time", over_time([*earlier, report])))
    return found


def accepted(report: dict[str, Any]) -> str:
    figure = new_figure()
    axes = figure.add_subplot()
    for at, one in enumerate(report["profiles"].values()):
        _bar(axes, at, one["accepted_share"], BAR)
    _name(axes, list(report["profiles"]))
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of the questions")
    return as_svg(figure)


def quality(report: dict[str, Any]) -> str:
    profiles = report["profiles"]
    measures = [name for name in SHARES if any(name in one["quality"] for one in profiles.values())]
    figure = new_figure(max(8.0, 1.1 * len(measures) + 2))
    axes = figure.add_subplot()
    width = BAR / max(1, len(profiles))
    for number, (name, one) in enumerate(profiles.items()):
        for at, measure in enumerate(measures):
            left = at - BAR / 2 + (number + 0.5) * width
            label = _label(name) if at == 0 else None
            _bar(axes, left, one["quality"].get(measure), width, color=f"C{number}", label=label)
    _name(axes, [HEADINGS[one].replace(" ", "\n", 1) for one in measures])
    axes.set_ylim(0, 1)
    if measures:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return as_svg(figure)


def seconds(report: dict[str, Any]) -> str:
    figure = new_figure()
    for place, (kind, title) in enumerate((("ttft_seconds", "to the first token"), ("total_seconds", "in all")), 1):
        axes = figure.add_subplot(1, 2, place)
        for number, share in enumerate(("p50", "p95", "p99")):
            heights = [one[kind][share] or 0.0 for one in report["profiles"].values()]
            lefts = [at - BAR / 2 + (number + 0.5) * BAR / 3 for at in range(len(heights))]
            axes.bar(lefts, heights, BAR / 3, color=f"C{number}", label=share)
        _name(axes, list(report["profiles"]))
        axes.set_title(f"seconds {title}")
        axes.legend(frameon=False)
    return as_svg(figure)


def cost(report: dict[str, Any]) -> str:
    priced = {
        name: one["usd_per_accepted_answer"]
        for name, one in report["profiles"].items()
        if one["usd_per_accepted_answer"] is not None
    }
    figure = new_figure()
    axes = figure.add_subplot()
    axes.bar(range(len(priced)), list(priced.values()), BAR)
    _name(axes, list(priced))
    axes.set_ylabel("US dollars")
    return as_svg(figure)


def over_time(reports: Sequence[dict[str, Any]]) -> str:
    names = dict.fromkeys(name for report in reports for name in report["profiles"])
    figure = new_figure()
    axes = figure.add_subplot()
    for name in names:
        at = [number for number, report in enumerate(reports) if name in report["profiles"]]
        shares = [reports[number]["profiles"][name]["accepted_share"] for number in at]
        means = [one["mean"] if one else 0.0 for one in shares]
        axes.plot(at, means, marker="o", label=_label(name))
    _name(axes, [when(report).replace(" ", "\n", 1) for report in reports])
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of the questions")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return as_svg(figure)


def _bar(
    axes: "Axes",
    at: float,
    estimate: dict[str, Any] | None,
    width: float,
    color: str = "C0",
    label: str | None = None,
) -> None:
    mean = estimate["mean"] if estimate else 0.0
    axes.bar(at, mean, width, color=color, label=label)
    if estimate and estimate["low"] is not None:
        below, above = max(0.0, mean - estimate["low"]), max(0.0, estimate["high"] - mean)
        axes.errorbar(at, mean, [[below], [above]], color="black", capsize=3, linewidth=1)


def _name(axes: "Axes", names: Sequence[str]) -> None:
    """Long names in lines: neighbours would run into one another."""
    wrapped = [name if "\n" in name else textwrap.fill(name, LINE) for name in names]
    axes.set_xticks(range(len(names)), [_label(name) for name in wrapped], fontsize=8)


def _label(name: str) -> str:
    """A dollar sign would begin a formula, and an underscore hides a label from the legend."""
    return name.replace("$", r"\$") if not name.startswith("_") else f" {name}"
