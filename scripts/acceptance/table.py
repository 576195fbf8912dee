"""What a person reads of a session."""

from collections.abc import Sequence

from acceptance.lines import Line
from acceptance.parts import Part
from acceptance.session import PartResult, missing

HEAD = f"{'':44} {'figure':>12} {'floor':>12} {'gap':>12} {'goal':>14} {'of goal':>8}"


def print_results(results: Sequence[PartResult]) -> None:
    for result in results:
        print(f"\n{result.part.name}: {result.status}. {result.part.proves}")
        if result.reason:
            print(f"  {result.reason}")
        if result.lines:
            print(HEAD)
        for line in result.lines:
            print(_row(line))


def print_parts(parts: Sequence[Part]) -> None:
    """Each with what it needs, and what of that is not installed."""
    for part in parts:
        absent = missing(part.packages)
        print(f"{part.name:15} {part.kind:10} {part.proves}")
        here = f"; not here: {', '.join(absent)}" if absent else ""
        print(f"{'':26} needs {', '.join(part.packages)}{here}")


def _row(line: Line) -> str:
    goal = ""
    if line.goal is not None:
        goal = f"{_number(line.value)} {'>=' if line.at_least else '<='} {line.goal:g}"
    mark = "" if line.reached is None else "" if line.reached else "  missed"
    figure = f"{_number(line.figure)} {line.unit}".rstrip()
    return (
        f"  {line.what:42} {figure:>12} {_number(line.floor):>12} {_number(line.gap):>12} {goal:>14} "
        f"{_number(line.of_goal):>8}{mark}"
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
