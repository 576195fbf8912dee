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
WIDTH, HEIGHT = 8.0, 7.2
NODES: dict[Node, Place] = {"examples": (2.4, 6.6), "tuning": (2.4, 4.4), "both_affordable": (2.4, 2.0)}
# Where each answer leads, whether to a leaf or to the next node.
TARGETS: dict[tuple[Node, bool], Place] = {
    ("examples", False): (6.8, 6.6),
    ("examples", True): NODES["tuning"],
    ("tuning", True): (6.8, 4.4),
    ("tuning", False): NODES["both_affordable"],
    ("both_affordable", True): (6.8, 2.0),
    ("both_affordable", False): (2.4, 0.3),
}
QUESTION_CHARACTERS = 40
# From a box's middle to its edge, in units of the axes: arrows end there.
HALF_LINE, HALF_CHARACTER, PADDING = 0.1, 0.045, 0.16


def draw(decision: Decision) -> "Figure":
    """Equal decisions give equal figures."""
    figure = new_figure(8.0, 6.0)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(0, HEIGHT)
    axes.set_title(f"strategy: {decision.strategy}", color=TAKEN, fontweight="bold")
    taken = {step.node: step for step in decision.path}
    texts = {place: _at_node(node, taken.get(node)) for node, place in NODES.items()}
    texts |= {TARGETS[leaf]: strategy for leaf, strategy in LEAVES.items()}
    for (node, yes), target in TARGETS.items():
        emphasised = node in taken and taken[node].yes == yes
        _arrow(axes, NODES[node], target, yes_no(yes), into=texts[target], taken=emphasised)
    for node, place in NODES.items():
        _box(axes, place, texts[place], taken=node in taken)
    last = decision.path[-1]
    for leaf in LEAVES:
        _box(axes, TARGETS[leaf], texts[TARGETS[leaf]], taken=leaf == (last.node, last.yes), leaf=True)
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


def _arrow(axes: "Axes", start: Place, end: Place, label: str, *, into: str, taken: bool) -> None:
    """From the middle of one box, which lies over it, to the edge of the other, which holds the text `into`."""
    colour = TAKEN if taken else PASSED
    down = start[0] == end[0]
    if down:
        tip = (end[0], end[1] + HALF_LINE * len(into.splitlines()) + PADDING)
        beside = (tip[0] + 0.12, tip[1] + 0.25)
    else:
        tip = (end[0] - HALF_CHARACTER * len(into) - PADDING, end[1])
        beside = (tip[0] - 0.6, tip[1] + 0.12)
    style: dict[str, Any] = {
        "arrowstyle": "-|>",
        "color": colour,
        "linewidth": 2.6 if taken else 1.0,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", xy=tip, xytext=start, arrowprops=style, zorder=1)
    axes.text(*beside, label, color=colour, fontweight="bold" if taken else "normal", zorder=2)
