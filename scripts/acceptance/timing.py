"""Seconds of work on a device, and what the device can do at best: measured, not read off a data sheet."""

import statistics
import time
from collections.abc import Callable
from typing import Any

COPIED_BYTES = 4 * 1024**3
COPIED_BYTES_SMALL = 32 * 1024**2
MATRIX, MATRIX_SMALL = 8192, 512


def finish(device: str) -> None:
    """Returns when the device has done what it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def seconds_of(work: Callable[[], Any], device: str, *, warm: int, times: int) -> list[float]:
    """Of each of `times` calls, after `warm` that do not count; the device is idle before and after each."""
    for _ in range(warm):
        work()
    taken = []
    for _ in range(times):
        finish(device)
        began = time.perf_counter()
        work()
        finish(device)
        taken.append(time.perf_counter() - began)
    return taken


def copy_bytes_per_second(device: str, *, small: bool) -> float:
    """Of a copy within the device's memory, bytes read and bytes written added up: the median of ten."""
    import torch

    count = COPIED_BYTES_SMALL if small else min(COPIED_BYTES, int(torch.cuda.mem_get_info()[0]) // 4)
    source = torch.zeros(count // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    taken = seconds_of(lambda: target.copy_(source), device, warm=3, times=10)
    return 2 * source.numel() * 4 / statistics.median(taken)


def matrix_operations_per_second(device: str, *, small: bool) -> float:
    """Of a square product in bf16 of random numbers: the median of ten."""
    import torch

    size = MATRIX_SMALL if small else MATRIX
    one, other = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    taken = seconds_of(lambda: one @ other, device, warm=3, times=10)
    return 2 * size**3 / statistics.median(taken)
