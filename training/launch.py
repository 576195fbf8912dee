"""The command line of a job's child, in one process or in several that train together."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Two shipped configurations of `accelerate launch`, so that none of the user's own is read.
FSDP, DDP = Path(__file__).parent / "fsdp.yaml", Path(__file__).parent / "ddp.yaml"

# How long torch's launcher, told to stop, waits for its processes: less than the trainer waits for the launcher.
SHUTDOWN_SECONDS = 25

# How torch's launcher tells that one of its processes was killed; the launcher itself then exits with 1.
KILLED_IN_LOG = b"Signal 9 (SIGKILL)"


def command(arguments: Sequence[str], *, processes: int, gpu: bool) -> list[str]:
    """The line that runs `python -m training ARGUMENTS`, on several GPUs sharded (FSDP), on a CPU copied (DDP)."""
    if processes == 1:
        return [sys.executable, "-m", "training", *arguments]
    return [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--config_file", str(FSDP if gpu else DDP)),
        *("--num_processes", str(processes)),
        *("--main_process_port", "0"),  # a free one
        *("--num_cpu_threads_per_process", str(max(1, len(os.sched_getaffinity(0)) // processes))),
        *("-m", "training"),
        *arguments,
    ]


def environment(*, processes: int, gpu: bool) -> dict[str, str]:
    """What the launched processes need beside that command line."""
    if processes == 1:
        return {}
    # NCCL would look for a network, and accelerate for a GPU.
    device = {"NCCL_SOCKET_IFNAME": "lo"} if gpu else {"ACCELERATE_USE_CPU": "true"}
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
