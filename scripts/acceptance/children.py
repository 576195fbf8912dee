"""Each run in a process of its own: a crash, an empty memory or a hang in one is told, and the next one runs."""

import importlib
import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from acceptance.bench import Bench, Figures, SkippedError, UnequalError
from local_llm import offline, processes
from local_llm.fileio import read_json

Status = Literal["done", "skipped", "wrong", "failed", "out of memory", "out of time", "crashed", "not run"]

# What most of a small run's time would go to.
PRELOADED = ["torch", "transformers", "acceptance.preloaded"]
MOST_REASON = 600


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `reason` says why it is not "done"; `figures` holds what it had told by then."""

    status: Status
    seconds: float = 0.0
    figures: Figures = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Target:
    """`function` is "module:name", called as name(bench, note, **options); `packages` must import before."""

    function: str
    packages: Sequence[str] = ()
    options: Figures = field(default_factory=dict)


def run_alone(target: Target, bench: Bench, *, limit_seconds: float, log: Path) -> Outcome:
    """The run, cut off after `limit_seconds`. What it prints goes to the file `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    kept = log.with_suffix(".json")
    kept.unlink(missing_ok=True)
    began = time.monotonic()
    process = _context(bench.small).Process(target=_work, args=(target, bench, kept, log))
    process.start()
    process.join(limit_seconds)
    late = process.is_alive()
    if late and process.pid is not None:
        processes.kill_group(process.pid)
        process.kill()  # had it no group of its own yet
    process.join()
    return _outcome(process, kept, log, late=late, seconds=round(time.monotonic() - began, 2))


def _context(small: bool) -> Any:
    """On a GPU each process starts from nothing: CUDA does not survive a fork."""
    context = multiprocessing.get_context("forkserver" if small else "spawn")
    if small:
        context.set_forkserver_preload(PRELOADED)
    return context


def _outcome(process: BaseProcess, kept: Path, log: Path, *, late: bool, seconds: float) -> Outcome:
    told = read_json(kept) if kept.exists() else {}
    figures = told.get("figures", {})
    if late:
        return Outcome("out of time", seconds, figures, f"cut off after {seconds:.0f} s; see {log}")
    if "status" not in told:
        return Outcome("crashed", seconds, figures, f"{_ending(process.exitcode)}; see {log}")
    return Outcome(told["status"], seconds, figures, told["reason"])


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


# In the child


def _work(target: Target, bench: Bench, kept: Path, log: Path) -> None:
    os.setsid()  # whatever it starts in its group ends with it
    processes.end_with_parent()
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    offline.apply()
    figures: Figures = {}

    def note(more: Figures) -> None:
        figures.update(more)
        _keep(kept, {"figures": figures})

    status, reason = _try(target, bench, note)
    _keep(kept, {"figures": figures, "status": status, "reason": reason[:MOST_REASON]})


def _try(target: Target, bench: Bench, note: Any) -> tuple[Status, str]:
    try:
        _import(target.packages)
        module, _, name = target.function.partition(":")
        note(getattr(importlib.import_module(module), name)(bench, note, **target.options))
    except SkippedError as error:
        return "skipped", str(error)
    except UnequalError as error:
        return "wrong", str(error)
    except BaseException as error:
        traceback.print_exc()
        return ("out of memory" if _is_out_of_memory(error) else "failed"), f"{type(error).__name__}: {error}"
    return "done", ""


def _import(packages: Sequence[str]) -> None:
    """Raises: SkippedError naming the first that is there but does not import: built for another CUDA, say."""
    for package in packages:
        try:
            importlib.import_module(package)
        except Exception as error:  # libraries raise what they like while they are imported
            raise SkippedError(f"{package} does not import: {error}") from error


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _keep(path: Path, value: Figures) -> None:
    """Whole or not at all; a power cut may take it."""
    staging = path.with_suffix(".new")
    staging.write_text(json.dumps(value), encoding="utf-8")
    staging.replace(path)
