"""Plots: equal figures are equal files, and need no screen."""

from pathlib import Path
from typing import Any

import pytest

from local_llm.errors import InvalidInputError
from local_llm.plots import as_svg, new_figure, save


def bars() -> Any:
    figure = new_figure()
    figure.add_subplot().bar(["one", "two"], [1, 2])
    return figure


@pytest.mark.parametrize(("suffix", "begins"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_equal_figures_are_equal_files(tmp_path: Path, suffix: str, begins: bytes) -> None:
    one, other = tmp_path / f"one{suffix}", tmp_path / f"other{suffix}"
    save(bars(), one)
    save(bars(), other)
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes().startswith(begins)


def test_text_of_a_plot_stays_text() -> None:
    assert ">two<" in as_svg(bars())


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"plot\.pdf; expected a name in \.svg or \.png"):
        save(new_figure(), tmp_path / "plot.pdf")
