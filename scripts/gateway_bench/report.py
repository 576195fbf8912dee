"""The figures as tables, and beside them what was aimed at."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway_bench.rounds import CONCURRENCIES, difference, median, of, ratio

Figures = dict[str, Any]
BUSIEST = CONCURRENCIES[-1]


@dataclass(frozen=True)
class Goal:
    name: str
    goal: float
    within: Callable[[float, float], bool]
    of: Callable[[Figures], float | None]  # of all phases' figures; None where not measured


def _ratio(phase: str, other: str) -> Callable[[Figures], float | None]:
    rate = {"requests": "requests_per_second", "streams": "chunks_per_second"}[phase]
    return lambda found: ratio(found.get(phase, ()), "ours", other, BUSIEST, rate)


def _worst(measure: Callable[[Figures], float]) -> Callable[[Figures], float | None]:
    return lambda found: max((measure(one) for one in found.get("leave", ())), default=None)


def _in(found: Figures, phase: str, name: str) -> Any:
    return found.get(phase, {}).get(name)


GOALS = (
    Goal("requests/s over LiteLLM's, 32 clients", 35, operator.ge, _ratio("requests", "litellm")),
    Goal("requests/s over nginx's, 32 clients", 0.25, operator.ge, _ratio("requests", "nginx")),
    Goal(
        "added p50, one client, ms", 1.2, operator.le,
        lambda found: difference(found.get("requests", ()), "ours", "direct", 1, "p50_ms"),
    ),
    Goal("chunks/s over LiteLLM's, 32 streams", 45, operator.ge, _ratio("streams", "litellm")),
    Goal("chunks/s over nginx's, 32 streams", 0.35, operator.ge, _ratio("streams", "nginx")),
    Goal(
        "a chunk's way through, p99, 32 paced streams, ms", 2, operator.le,
        lambda found: median(found.get("streams", ()), "ours", "paced", "delay.p99_ms"),
    ),
    Goal("streams dropped of those held", 0, operator.le, lambda found: _in(found, "hold", "dropped")),
    Goal(
        "seconds until killed clients' slots are free", 1, operator.le,
        _worst(lambda one: max(one["seconds_until_free"])),
    ),
    Goal(
        "descriptors left over by killed clients", 0, operator.le,
        _worst(lambda one: one["descriptors"][-1] - one["descriptors"][0]),
    ),
    Goal(
        "bytes kept of a request", 50, operator.le,
        lambda found: _in(found, "memory", "bytes_per_request_after_the_first_tenth"),
    ),
    Goal(
        "added with context beyond finding it, mean, ms", 3, operator.le,
        lambda found: _in(found, "retrieval", "beyond_finding_mean_ms"),
    ),
    Goal("tokens/s over direct, real engine", 0.98, operator.ge, lambda found: _in(found, "engine", "ratio")),
)  # fmt: skip


def judged(found: Figures) -> list[Figures]:
    """Every goal that this run measured something for."""
    rows = []
    for goal in GOALS:
        value = goal.of(found)
        if value is not None:
            rows.append(
                {
                    "name": goal.name,
                    "ours": round(value, 3),
                    "goal": goal.goal,
                    "met": goal.within(value, goal.goal),
                }
            )
    return rows


def print_goals(rows: Sequence[Figures]) -> None:
    if rows:
        print(f"\n{'against the goals':50} {'ours':>10} {'goal':>8}")
    for row in rows:
        print(f"{row['name']:50} {row['ours']:10g} {row['goal']:8g}  {'met' if row['met'] else 'MISSED'}")


WHOLE = (
    ("requests/s", "requests_per_second", 11),
    ("p50 ms", "p50_ms", 9),
    ("p90 ms", "p90_ms", 9),
    ("p99 ms", "p99_ms", 9),
    ("cpu us/request", "cpu_microseconds_per_request", 15),
    ("rest busy", "rest_busy", 10),
)
STREAMED = (
    ("chunks/s", "chunks_per_second", 11),
    ("chunks/read", "chunks_per_read", 12),
    ("cpu us/chunk", "cpu_microseconds_per_chunk", 13),
    ("delay p50 ms", "delay.p50_ms", 13),
    ("delay p99 ms", "delay.p99_ms", 13),
    ("longest ms", "delay.longest_ms", 11),
    ("in 2 ms", "within_2_ms", 8),
    ("rest busy", "rest_busy", 10),
)


def print_compared(title: str, figures: Sequence[Figures], columns: Sequence[tuple[str, str, int]]) -> None:
    """One line for each way and number of clients: medians over the rounds."""
    print(f"\n{title:24} {'clients':>8}" + "".join(f"{head:>{width}}" for head, _, width in columns))
    for clients in dict.fromkeys(one["clients"] for one in figures):
        for way in sorted({one["way"] for one in figures}, key=[one["way"] for one in figures].index):
            values = [median(figures, way, clients, name) for _, name, _ in columns]
            cells = "".join(
                f"{_shown(value):>{width}}" for value, (_, _, width) in zip(values, columns, strict=True)
            )
            wrong = sum(one["errors"] for one in of(figures, way, clients))
            print(f"{way:24} {clients!s:>8}{cells}" + (f"  {wrong} errors" if wrong else ""))


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def print_plain(title: str, figures: Figures | Sequence[Figures]) -> None:
    for one in [figures] if isinstance(figures, dict) else figures:
        print(f"\n{title}")
        for name, value in one.items():
            print(f"  {name:42} {value}")
