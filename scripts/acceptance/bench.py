"""What every run is handed: where it works, on what machine, and whom to tell its figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
# Figures told before the end are kept if the run is cut off.
Note = Callable[[Figures], None]


class SkippedError(Exception):
    """A run that cannot be done here: why."""


class UnequalError(Exception):
    """Two things that must be equal are not: the product is wrong, or the hardware is."""


@dataclass(frozen=True)
class Bench:
    """`machine` holds what the run `machine` found (machine.py); empty for that run itself."""

    work: Path
    small: bool
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> str:
        return "cpu" if self.small else "cuda"

    @property
    def memory_gib(self) -> float:
        """Of the GPU; 0 where there is none."""
        return float(self.machine.get("gpu_memory_gib", 0.0))

    def folder(self, name: str) -> Path:
        """A folder of its own below the work folder, empty the first time."""
        path = self.work / name
        path.mkdir(parents=True, exist_ok=True)
        return path
