"""What the kernel tells of a process group: its memory, its processor time, its open descriptors."""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Observed:
    memory_bytes: int  # proportional set size: pages that processes share are counted once
    cpu_seconds: float
    descriptors: int


def observe(leader: int) -> Observed:
    """The group that `leader` leads, all its processes together."""
    group = _group(leader)
    return Observed(
        memory_bytes=sum(_memory(pid) for pid in group),
        cpu_seconds=sum(_cpu(pid) for pid in group),
        descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in group),  # noqa: PTH208 (counted, not read)
    )


def cpu_seconds(leader: int) -> float:
    """The same without looking at memory, which takes a while."""
    return sum(_cpu(pid) for pid in _group(leader))


def _group(leader: int) -> list[int]:
    members = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in members if _group_of(pid) == leader]


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND
