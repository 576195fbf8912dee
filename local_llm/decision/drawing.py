"""The tree as a drawing, the way that was taken in it emphasised."""

import textwrap
from typing import TYPE_CHECKING, Any

from local_llm.decision.text import yes_no
from local_llm.decision.tree import AT_NODE, LEAVES, Decision, Node, Step
from local_llm.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place = tuple[float, float]

TAKEN, PASSED = "#0b5fa5", "#8a8a8a"  # apart for the colour-blind, too, and in print by their weight
WIDTH, HEIGHT = 10.0, 8.0
NODES: dict[Node, Place] = {"examples": (3.2, 7.0), "tuning": (3.2, 4.6), "both_affordable": (3.2, 2.2)}
# Where each answer leads, whether to a leaf or to the next node.
TARGETS: dict[tuple[Node, bool], Place] = {
    ("examples", False): (8.4, 7.0),
    ("examples", True): NODES["tuning"],
    ("tuning", True): (8.4, 4.6),
    ("tuning", False): NODES["both_affordable"],
    ("both_affordable", True): (8.4, 2.2),
    ("both_affordable", False): (3.2, 0.3),
}
QUESTION_CHARACTERS = 40


def draw(decision: Decision) -> "Figure":
    """Equal decisions give equal figures."""
    figure = new_figure(9.0, 6.5)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(-0.3, HEIGHT)
    axes.set_title(f"strategy: {decision.strategy}", color=TAKEN, fontweight="bold")
    taken = {step.node: step for step in decision.path}
    for (node, yes), target in TARGETS.items():
        _arrow(axes, NODES[node], target, yes_no(yes), taken=node in taken and taken[node].yes == yes)
    for node, place in NODES.items():
        _box(axes, place, _at_node(node, taken.get(node)), taken=node in taken)
    last = decision.path[-1]
    for leaf, strategy in LEAVES.items():
        _box(axes, TARGETS[leaf], strategy, taken=leaf == (last.node, last.yes), leaf=True)
    return figure


def _at_node(node: Node, step: Step | None) -> str:
    """The question, and what was answered where the way led past it."""
    question = textwrap.fill(AT_NODE[node], QUESTION_CHARACTERS)
    if step is None:
        return question
    answers = [
        f"{ground.question.replace('_', ' ')}: {yes_no(ground.answer.yes)} ({ground.answer.source})"
        for ground in step.grounds
    ]
    return "\n".join([question, *answers])


def _box(axes: "Axes", place: Place, text: str, *, taken: bool, leaf: bool = False) -> None:
    colour = TAKEN if taken else PASSED
    filled = taken and leaf
    shape: dict[str, Any] = {
        "boxstyle": "round,pad=0.6" if leaf else "square,pad=0.5",
        "facecolor": colour if filled else "white",
        "edgecolor": colour,
        "linewidth": 2.2 if taken else 1.0,
    }
    ink = "white" if filled else ("black" if taken else PASSED)
    weight = "bold" if filled else "normal"
    axes.text(*place, text, ha="center", va="center", color=ink, fontweight=weight, bbox=shape, zorder=3)


def _arrow(axes: "Axes", start: Place, end: Place, label: str, *, taken: bool) -> None:
    """Drawn from middle to edge: boxes lie over it, and the head stops before the target's."""
    colour = TAKEN if taken else PASSED
    down = start[0] == end[0]
    tip = (end[0], end[1] + 0.75) if down else (end[0] - 0.9, end[1])
    style: dict[str, Any] = {
        "arrowstyle": "-|>",
        "color": colour,
        "linewidth": 2.6 if taken else 1.0,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", xy=tip, xytext=start, arrowprops=style, zorder=1)
    beside = (start[0] + 0.15, tip[1] + 0.2) if down else (tip[0] - 0.5, tip[1] + 0.15)
    axes.text(*beside, label, color=colour, fontweight="bold" if taken else "normal", zorder=2)
