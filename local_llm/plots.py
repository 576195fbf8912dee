"""Plots of reports, drawn without a screen: the home of matplotlib.

What draws takes a figure from here, asks it for axes, and gives it back to be saved:
nothing else imports the library. Equal figures give equal files: no date in them, and no names drawn by chance.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_llm.errors import InvalidInputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png")
DOTS_PER_INCH = 144

_STYLE: Any = {
    "svg.hashsalt": "local-llm",
    "svg.fonttype": "none",  # text stays text: to be searched, copied and read aloud
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_UNDATED: dict[str, dict[str, str | None]] = {
    # All of it is metadata that links to the addresses of its vocabularies.
    ".svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    ".png": {"Software": None},
}


def new_figure(width_inches: float = 8.0, height_inches: float = 4.5) -> "Figure":
    """An empty figure whose parts are laid out so that none covers another."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        return Figure(figsize=(width_inches, height_inches), layout="constrained")


def save(figure: "Figure", path: Path) -> None:
    """Writes it as the path's suffix says.

    Raises: InvalidInputError if that is neither .svg nor .png.
    """
    if path.suffix not in FORMATS:
        raise InvalidInputError(f"a plot cannot be written as {path.name}; expected a name in .svg or .png")
    path.write_bytes(_bytes(figure, path.suffix))


def as_svg(figure: "Figure") -> str:
    """The `<svg>` element, to stand in a page."""
    text = _bytes(figure, ".svg").decode()
    return text[text.index("<svg") :]


def _bytes(figure: "Figure", suffix: str) -> bytes:
    from matplotlib import rc_context

    out = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(out, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=_UNDATED[suffix])
    return out.getvalue()
