"""What machine a figure was measured on, read without any model library."""

import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Hardware:
    device: str  # "cpu" or "cuda"
    name: str  # the processor's or the GPU's own name
    cores: int
    memory_gib: float

    def to_json(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.name}, {self.cores} cores, {self.memory_gib:.0f} GiB"


def this_hardware() -> Hardware:
    gpu = gpu_name()
    return Hardware(
        device="cuda" if gpu else "cpu",
        name=gpu or _processor_name(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(_meminfo("MemTotal") / 1024**2, 1),
    )


def gpu_name() -> str | None:
    """The first NVIDIA GPU's name, or None where the driver shows none."""
    return _first_gpu("name")


def gpu_memory_gib() -> float | None:
    """The first NVIDIA GPU's memory, or None where the driver shows none."""
    found = _first_gpu("memory.total")  # "81559 MiB"
    number = found.removesuffix(" MiB") if found else ""
    return int(number) / 1024 if number.isdigit() else None


@dataclass(frozen=True)
class GPU:
    """What the driver tells of one now; None for a figure that it does not tell."""

    index: int
    name: str
    memory_bytes: float | None
    memory_used_bytes: float | None
    utilization_ratio: float | None
    temperature_celsius: float | None
    power_watts: float | None


GPU_FIELDS = "index,name,memory.total,memory.used,utilization.gpu,temperature.gpu,power.draw"
GPU_QUERY_SECONDS = 5
MIB = 1024.0**2


def gpus() -> list[GPU]:
    """All NVIDIA GPUs; none where the driver shows none or does not answer in time."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=False, timeout=GPU_QUERY_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [_gpu(line) for line in found.stdout.splitlines() if line.count(",") == GPU_FIELDS.count(",")]


def _gpu(line: str) -> GPU:
    index, name, total, used, busy, heat, power = [field.strip() for field in line.split(",")]
    return GPU(
        int(index),
        name,
        _times(total, MIB),
        _times(used, MIB),
        _times(busy, 0.01),
        _times(heat, 1),
        _times(power, 1),
    )


def _times(field: str, factor: float) -> float | None:
    try:
        return float(field) * factor
    except ValueError:  # "[N/A]"
        return None


def available_memory_gib() -> float:
    """Memory a new process could take: what the kernel says is available, or less where a cgroup limits us."""
    available = _meminfo("MemAvailable") * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists():
        text = limit.read_text().strip()
        if text != "max":
            available = min(available, max(0, int(text) - int(used.read_text())))
    return available / 1024**3


def _meminfo(field: str) -> int:
    """A field of /proc/meminfo, in KiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


def _processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


def _first_gpu(field: str) -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    return found.stdout.splitlines()[0].strip() if found.returncode == 0 and found.stdout.strip() else None
