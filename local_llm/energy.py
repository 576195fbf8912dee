"""The energy that a piece of work took, where drivers count it: NVIDIA's for GPUs, Linux' powercap for processors.

Drivers count for whole devices: what else ran on them meanwhile is in the figure. Where nothing is counted, or
the counters may not be read (those of processors often by root alone), there is no figure: none is estimated.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

# Source: the kernel's documentation of powercap (Documentation/power/powercap/powercap.rst).
POWERCAP = Path("/sys/class/powercap")
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
# A processor's counter begins again at 0 after some 260 kJ, which are 4 kW for a minute: looked at twice as often,
# no processor of today gets round unseen.
LOOK_SECONDS = 30.0
MICROJOULES = 1e-6
MILLIJOULES = 1e-3
UNKNOWN: Mapping[str, Any] = {"energy_joules": None, "energy_of": []}


class Counter(Protocol):
    """Joules since some moment. `wraps_at`: where it begins again at 0; None: it does not."""

    @property
    def name(self) -> str: ...

    @property
    def wraps_at(self) -> float | None: ...

    def read(self) -> float:
        """Raises: OSError, ValueError."""
        ...


@dataclass(frozen=True)
class PowercapZone:
    name: str
    folder: Path
    wraps_at: float | None

    def read(self) -> float:
        return int((self.folder / "energy_uj").read_text()) * MICROJOULES


@dataclass(frozen=True)
class NvidiaGPU:
    """Source: NVML's nvmlDeviceGetTotalEnergyConsumption: millijoules since the driver was loaded."""

    name: str
    handle: Any
    wraps_at: float | None = None

    def read(self) -> float:
        import pynvml

        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) * MILLIJOULES
        except pynvml.NVMLError as error:
            raise OSError(str(error)) from None


def powercap_zones(folder: Path = POWERCAP) -> list[PowercapZone]:
    """Processor packages, and the memory beside them, as far as this process may read their counters."""
    found = []
    for zone in sorted(folder.glob("intel-rapl:*")):  # AMD's are called so, too; a core's are within its package's
        try:
            name = (zone / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                made = PowercapZone(name, zone, int((zone / "max_energy_range_uj").read_text()) * MICROJOULES)
                made.read()
                found.append(made)
        except (OSError, ValueError):
            continue
    return found


def nvidia_gpus(environment: Mapping[str, str] | None = None) -> list[NvidiaGPU]:
    """Those that this process may use and whose driver counts; none where there is no driver."""
    try:
        import pynvml
    except ImportError:
        return []
    chosen = (os.environ if environment is None else environment).get(VISIBLE_GPUS)
    try:
        pynvml.nvmlInit()
        numbers = range(pynvml.nvmlDeviceGetCount()) if chosen is None else chosen.split(",")
        gpus = [_gpu(pynvml, str(number).strip()) for number in numbers]
        for gpu in gpus:
            gpu.read()
    except (pynvml.NVMLError, OSError, ValueError):  # no driver, a device older than Volta, a part of one (MIG)
        return []
    return gpus


def _gpu(pynvml: Any, which: str) -> NvidiaGPU:
    """`which`: as CUDA_VISIBLE_DEVICES names it."""
    if which.startswith("GPU-"):
        return NvidiaGPU(f"GPU {which}", pynvml.nvmlDeviceGetHandleByUUID(which))
    return NvidiaGPU(f"GPU {which}", pynvml.nvmlDeviceGetHandleByIndex(int(which)))


def counters_here() -> list[Counter]:
    return [*nvidia_gpus(), *powercap_zones()]


class EnergyMeter:
    """Counts from start() on; as a context manager, from its begin to its end. Any thread may read it."""

    def __init__(self, counters: Sequence[Counter] | None = None):
        """`counters`: None for those of this machine."""
        self._counters = counters_here() if counters is None else list(counters)
        self._lock = threading.Lock()
        self._last: list[float] = []
        self._joules = 0.0
        self._lost = False  # a counter could not be read on the way: what it counted is not known
        self._ended = threading.Event()
        self._looking: threading.Thread | None = None

    def start(self) -> None:
        """Counts from 0. Counters that wrap are looked at now and then until stop()."""
        with self._lock:
            self._joules, self._lost = 0.0, False
            try:
                self._last = [counter.read() for counter in self._counters]
            except (OSError, ValueError):
                self._counters = []
        if self._looking is None and any(counter.wraps_at is not None for counter in self._counters):
            self._looking = threading.Thread(target=self._keep_looking, name="energy", daemon=True)
            self._looking.start()

    def stop(self) -> None:
        """Takes the last look. The meter cannot be started again."""
        if self._ended.is_set():
            return
        self.joules()
        self._ended.set()
        if self._looking is not None:
            self._looking.join()

    def joules(self) -> float | None:
        """Since start(); None where no driver tells."""
        with self._lock:
            if not self._ended.is_set():
                self._look()
            return None if self._lost or not self._last else self._joules

    def facts(self) -> dict[str, Any]:
        """As the ledger has them: `energy_joules`, and `energy_of`, the devices that they are of."""
        joules = self.joules()
        if joules is None:
            return dict(UNKNOWN)
        return {"energy_joules": round(joules, 3), "energy_of": [counter.name for counter in self._counters]}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _look(self) -> None:
        if not self._last:
            return
        try:
            read = [counter.read() for counter in self._counters]
        except (OSError, ValueError):
            self._lost = True
            return
        for counter, before, after in zip(self._counters, self._last, read, strict=True):
            self._joules += after - before + (0.0 if after >= before else counter.wraps_at or 0.0)
        self._last = read

    def _keep_looking(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.joules()


def summed(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The facts() of several pieces of work as those of one; not known if one's are not."""
    joules = [one.get("energy_joules") for one in facts]
    known = [value for value in joules if value is not None]
    if not known or len(known) < len(joules):
        return dict(UNKNOWN)
    devices = dict.fromkeys(name for one in facts for name in one["energy_of"])
    return {"energy_joules": round(sum(known), 3), "energy_of": list(devices)}
