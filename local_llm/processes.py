"""Child processes that never outlive their purpose.

Each child leads a process group of its own and is recorded with its start time. When a parent was killed,
the next one ends what is left of the groups before it starts anything: vLLM's EngineCore, for one, outlives
a killed API server and keeps the GPU (vllm#55510).
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from local_llm.fileio import read_json, write_json

PR_SET_PDEATHSIG = 1  # prctl(2)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # proc_sys_kernel(5): another one after each boot
PID_NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class ProcessRecord:
    name: str
    pid: int  # also its process group
    started: int  # clock ticks after boot, field 22 of /proc/PID/stat: with pid and boot, it names one process
    boot: str = ""  # as boot() tells it; records of before it was kept have none


def boot() -> str:
    """Since when numbers of processes are given out: the boot, and in a container its namespace."""
    return f"{BOOT_ID.read_text().strip()} {PID_NAMESPACE.readlink()}"


def start_time(pid: int) -> int | None:
    """The start time of a living process; None if there is none. A zombie does not live."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces
    return None if fields[0] in "ZX" else int(fields[19])


def start_child(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: IO[bytes] | None,
    records: Path,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Starts a child that leads its own group, gets SIGTERM when we die, and is recorded in `records`."""
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)

    def before_exec() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    child = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        pass_fds=pass_fds,
        preexec_fn=before_exec,  # noqa: PLW1509 (it calls nothing but the kernel)
    )
    try:
        record = ProcessRecord(name, child.pid, start_time(child.pid) or 0, boot())
        records.mkdir(parents=True, exist_ok=True)
        write_json(records / f"{name}.process.json", asdict(record))
    except OSError:
        stop_child(child, grace_seconds=0)  # unrecorded, it might outlive us
        raise
    return child


def end_with_parent() -> None:
    """From now on the kernel kills this process when its parent ends: for one that others start for us."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def stop_child(child: subprocess.Popen[bytes], *, grace_seconds: float) -> None:
    """SIGTERM to the child, SIGKILL to its whole group after the grace; returns when it is gone."""
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_seconds)
    kill_group(child.pid)
    child.wait()


def end_leftovers(records: Path) -> list[str]:
    """Ends what a killed parent left behind; returns the names of what was still alive."""
    ended = []
    for path in sorted(records.glob("*.process.json")):
        record = ProcessRecord(**read_json(path))
        if _is_ours(record):
            if _group_alive(record.pid):
                ended.append(record.name)
            kill_group(record.pid)
        path.unlink(missing_ok=True)
    return ended


def _is_ours(record: ProcessRecord) -> bool:
    """Whether what now has the recorded number, or belongs to its group, is what was recorded.

    A pid that now belongs to another process is left alone; a group whose leader is gone is still ours, because the
    kernel gives its number to nobody while a member lives. After a boot the numbers begin again, and nothing of
    before it is left.
    """
    leader = start_time(record.pid)
    if leader is None:
        return record.boot == boot()
    return leader == record.started and record.boot in ("", boot())


def kill_group(group: int, *, timeout_seconds: float = 10) -> None:
    deadline = time.monotonic() + timeout_seconds
    while _group_alive(group) and time.monotonic() < deadline:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        time.sleep(0.02)


def _group_alive(group: int) -> bool:
    """Whether a living, non-zombie process belongs to the group."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _group_of(int(entry.name)) == group and start_time(int(entry.name)) is not None:
            return True
    return False


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
