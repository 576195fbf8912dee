"""The command line of a job's child, in one process or in several that train together."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local_llm.hardware import gpu_name
from local_llm.settings import TrainingSettings

# Two shipped configurations of `accelerate launch`, so that none of the user's own is read.
FSDP, DDP = Path(__file__).parent / "fsdp.yaml", Path(__file__).parent / "ddp.yaml"

# How long torch's launcher, told to stop, waits for its processes: less than the trainer waits for the launcher.
SHUTDOWN_SECONDS = 25

# How torch's launcher tells that one of its processes was killed; the launcher itself then exits with 1.
KILLED_IN_LOG = b"Signal 9 (SIGKILL)"


@dataclass(frozen=True)
class Launch:
    """How a job's processes are started. `sharded`: each holds a part of the base (FSDP2), else all of it (DDP)."""

    processes: int
    gpu: bool
    sharded: bool

    @classmethod
    def of(cls, settings: TrainingSettings) -> "Launch":
        """Shards by default where there are GPUs: there a model that fits nowhere whole is what several are for."""
        gpu = gpu_name() is not None
        sharded = gpu if settings.sharding == "auto" else settings.sharding == "full"
        return cls(settings.processes, gpu, sharded)

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The line that runs `python -m training ARGUMENTS`."""
        if self.processes == 1:
            return [sys.executable, "-m", "training", *arguments]
        threads = max(1, len(os.sched_getaffinity(0)) // self.processes)
        return [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            *("--config_file", str(FSDP if self.sharded else DDP)),
            *("--num_processes", str(self.processes)),
            *("--main_process_port", "0"),  # a free one
            *("--num_cpu_threads_per_process", str(threads)),
            *("-m", "training"),
            *arguments,
        ]

    def environment(self) -> dict[str, str]:
        """What the launched processes need beside that command line."""
        if self.processes == 1:
            return {}
        # NCCL would look for a network, and accelerate for a GPU.
        device = {"NCCL_SOCKET_IFNAME": "lo"} if self.gpu else {"ACCELERATE_USE_CPU": "true"}
        return {**device, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS)}


def is_main_process() -> bool:
    """Whether this process is the one of its job that writes: to the state, to the log, to the job's folder."""
    return int(os.environ.get("RANK", "0")) == 0


def is_launched() -> bool:
    """Whether this process is one of several."""
    return "RANK" in os.environ


def processes() -> int:
    """How many train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def was_killed(returncode: int, log: bytes) -> bool:
    """Whether the child, or one of its processes, died by SIGKILL. `log`: what it wrote."""
    return returncode == -9 or (returncode != 0 and KILLED_IN_LOG in log)
