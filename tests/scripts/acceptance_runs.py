"""Runs that end in every way a run can end, for test_gpu_acceptance.py; each is started in a process of its own."""

import os
import signal
import time
from typing import Any


def well(bench: Any, note: Any, *, figure: int = 1) -> dict[str, Any]:
    return {"figure": figure, "small": bench.small}


def badly(bench: Any, note: Any) -> dict[str, Any]:
    raise ValueError("no such thing")


def without_memory(bench: Any, note: Any) -> dict[str, Any]:
    note({"figure": 2})
    raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")


def unequal(bench: Any, note: Any) -> dict[str, Any]:
    from acceptance.bench import UnequalError

    raise UnequalError("4 is not 5")


def killed(bench: Any, note: Any) -> dict[str, Any]:
    note({"figure": 3})
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def for_ever(bench: Any, note: Any) -> dict[str, Any]:
    note({"figure": 4})
    time.sleep(600)
    return {}
