"""The plot of a break-even's sensitivity."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_llm.costs.sensitivity import Curve, Sensitivity
from local_llm.plots import new_figure, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(found: Sensitivity, path: Path, *, title: str) -> None:
    """Raises: InvalidInputError if the path ends neither in .svg nor in .png."""
    save(figure_of(found, title), path)


def figure_of(found: Sensitivity, title: str) -> "Figure":
    figure = new_figure(width_inches=12.0, height_inches=4.5)
    figure.suptitle(title)
    price, utilisation, context = figure.subplots(1, 3)
    _lines(price, found.by_price, "change of the price of an hour", "requests/s to break even")
    price.xaxis.set_major_formatter(lambda x, _: f"{x:+.0%}")
    if found.capacity_requests_per_second is not None:
        price.axhline(found.capacity_requests_per_second, color="black", linestyle=":", label="capacity")
    price.legend(fontsize=8)
    if found.by_utilisation:
        _lines(utilisation, found.by_utilisation, "utilisation", "$ a request")
        utilisation.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        utilisation.set_yscale("log")
    else:
        utilisation.set_axis_off()
        utilisation.text(
            0.5, 0.5, "not drawn: no throughput measured", ha="center", transform=utilisation.transAxes
        )
    _lines(context, found.by_context, "tokens of context", "$ a request")
    return figure


def _lines(axes: Any, curves: tuple[Curve, ...], x_label: str, y_label: str) -> None:
    """A hosted model has one colour in all panels, as they come in one order; what is here is black."""
    here = [curve for curve in curves if curve.name.startswith("here")]
    hosted = [curve for curve in curves if curve not in here]
    for curve in here:
        axes.plot(curve.x, curve.y, label=curve.name, color="black")
    for number, curve in enumerate(hosted):
        axes.plot(curve.x, curve.y, label=curve.name, color=f"C{number}", linestyle="--")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(fontsize=8)
