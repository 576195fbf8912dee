"""One phase of one system, in a process of its own that is held to one core.

    python -m index_bench.measure PHASE ENGINE --data FOLDER --store FOLDER --result FILE [--tuned FILE] ...

build   stores and indexes everything
tune    finds for each workload the least effort that reaches the target, the same way for every system
query   asks the questions one after the other and notes each latency; memory; text fetch

Tuning, on training questions: each strategy's ladder of efforts is halved until the least effort with recall@10
at the target is found; of the strategies that reach it the fastest is taken. Its effort is then raised, a rung
at a time, until the test questions reach the target as well.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from index_bench.dataset import WORKLOADS, Dataset, Queries, Workload
from index_bench.engine import Engine, make_engine

WARM_UP = 30
FIRST_RUNG = 4  # the first effort tried: what is too slow to search well is not asked much more than needed
# What a slow search may take of a phase; figures say how many questions were asked.
TUNING_SECONDS = 10
FEWEST = 50
LONGER = 3  # times as long is spent at most to ask so many


@dataclass(frozen=True)
class Choice:
    """A workload's way and effort. recall: on training questions while tuning, then on the test questions."""

    strategy: str
    effort: int
    recall: float
    milliseconds: float
    reached: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=("build", "tune", "query"))
    parser.add_argument("engine")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--tuned", type=Path)
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--core", type=int)
    parser.add_argument("--workloads", nargs="*", default=())
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    data, engine = Dataset(options.data), make_engine(options.engine, options.store)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    try:
        result = {"build": build, "tune": tune, "query": query}[options.phase](engine, data, options)
    finally:
        engine.close()
    partial = options.result.with_suffix(".partial")
    partial.write_text(json.dumps(result))
    partial.rename(options.result)


# Building


def build(engine: Engine, data: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    options.store.mkdir(parents=True)
    data.attributes  # noqa: B018 (read before the clock starts)
    started = time.monotonic()
    engine.build(data)
    return {
        "seconds": time.monotonic() - started,
        "cpu_seconds": sum(cpu_seconds(process) for process in (os.getpid(), *engine.processes())),
        "disk_bytes": engine.disk_bytes(),
        "versions": engine.versions(),
    }


def cpu_seconds(process: int) -> float:
    """What a process and the children it waited for took of the processor."""
    ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:15]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


# Tuning


def tune(engine: Engine, data: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    engine.open()
    result = {}
    for workload in WORKLOADS:
        if options.workloads and workload.name not in options.workloads:
            continue
        choice = tuned(engine, data, workload, options.target)
        if choice is not None:
            result[workload.name] = asdict(choice)
            print(f"  {workload.name:10} {choice}", flush=True)
    return result


def tuned(engine: Engine, data: Dataset, workload: Workload, target: float) -> Choice | None:
    """None where the engine has no way for this workload."""
    training = data.queries(workload, "tuning")
    ladders = engine.strategies(workload.column)
    best: Choice | None = None
    for name, ladder in ladders.items():
        best = better(best, least_effort(engine, data, training, name, ladder, target, best))
    if best is None:
        return None
    return confirmed(engine, data, data.queries(workload, "questions"), best, ladders[best.strategy], target)


def better(one: Choice | None, other: Choice) -> Choice:
    """The faster of those that reach the target; of two that do not, the more exact."""
    if one is None or one.reached != other.reached:
        return other if one is None or other.reached else one
    if one.reached:
        return min(one, other, key=lambda choice: choice.milliseconds)
    return max(one, other, key=lambda choice: choice.recall)


def least_effort(
    engine: Engine,
    data: Dataset,
    queries: Queries,
    strategy: str,
    ladder: tuple[int, ...],
    target: float,
    rival: Choice | None,
) -> Choice:
    """Given up as soon as an effort that is too small is slower than the rival: larger ones are slower still."""
    low, high, middle = 0, len(ladder) - 1, min(FIRST_RUNG, len(ladder) - 1)
    best = None
    while low <= high:
        choice = tried(engine, data, queries, strategy, ladder[middle], target)
        if choice.reached:
            best, high = choice, middle - 1
        else:
            low, failed = middle + 1, choice
            if rival is not None and rival.reached and choice.milliseconds > rival.milliseconds:
                break
        middle = (low + high) // 2
    return best or failed


def confirmed(
    engine: Engine, data: Dataset, queries: Queries, choice: Choice, ladder: tuple[int, ...], target: float
) -> Choice:
    for effort in ladder[ladder.index(choice.effort) :]:
        choice = tried(engine, data, queries, choice.strategy, effort, target)
        if choice.reached:
            break
    return choice


def tried(engine: Engine, data: Dataset, queries: Queries, strategy: str, effort: int, target: float) -> Choice:
    engine.prepare(strategy, effort)
    asked(engine, queries, 1, 1)
    latencies, found, _ = asked(engine, queries, TUNING_SECONDS, len(queries.vectors))
    recall = data.recall(queries, found)
    return Choice(
        strategy, effort, round(recall, 4), round(1e3 * statistics.median(latencies), 3), recall >= target
    )


# Measuring


def query(engine: Engine, data: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    choices = {name: Choice(**values) for name, values in json.loads(options.tuned.read_text()).items()}
    before = resident_bytes([])
    started = time.monotonic()
    engine.open()
    engine_ready = time.monotonic() - started
    result: dict[str, Any] = {"open_seconds": engine_ready, "versions": engine.versions(), "workloads": {}}
    answers = {}
    for workload in WORKLOADS:
        if workload.name not in choices:
            continue
        choice, queries = choices[workload.name], data.queries(workload, "questions")
        engine.prepare(choice.strategy, choice.effort)
        asked(engine, queries, 2, WARM_UP)
        latencies, found, scores = asked(engine, queries, options.seconds, len(queries.vectors))
        answers[workload.name] = (queries, found, scores)
        result["workloads"][workload.name] = {
            **figures(latencies),
            "strategy": choice.strategy,
            "effort": choice.effort,
        }
        if workload.column is None:
            result["text_milliseconds"] = text_milliseconds(engine, found)
    # Before the data are read to check the answers: they would count.
    result["resident_bytes"] = resident_bytes(engine.processes()) - before
    for name, (queries, found, scores) in answers.items():
        check_scores(data, queries, found, scores)
        result["workloads"][name]["recall"] = round(data.recall(queries, found), 4)
    return result


def asked(
    engine: Engine, queries: Queries, seconds: float, most: int
) -> tuple[list[float], list[np.ndarray], list[np.ndarray]]:
    """Asks the first questions one by one until time is up, FEWEST of them if that is not much longer.

    Returns: latencies in seconds, rows and scores of each.
    """
    latencies: list[float] = []
    rows: list[Any] = []
    scores: list[Any] = []
    for at in range(min(most, len(queries.vectors))):
        vector, window = queries.vectors[at], queries.window(at)
        started = time.perf_counter()
        found = engine.search(vector, window)
        latencies.append(time.perf_counter() - started)
        rows.append(found[0])
        scores.append(found[1])
        spent = sum(latencies)
        if (spent > seconds and len(latencies) >= FEWEST) or spent > LONGER * seconds:
            break
    return latencies, [np.asarray(r, np.int64) for r in rows], [np.asarray(s) for s in scores]


def figures(latencies: list[float]) -> dict[str, Any]:
    p50, p99 = np.percentile(latencies, (50, 99)) * 1e3
    return {
        "questions": len(latencies),
        "qps": round(len(latencies) / sum(latencies), 1),
        "p50_milliseconds": round(float(p50), 3),
        "p99_milliseconds": round(float(p99), 3),
    }


def check_scores(data: Dataset, queries: Queries, found: list[np.ndarray], scores: list[np.ndarray]) -> None:
    """Raises: ValueError unless every score is the inner product (to a hundredth: some come from codes)."""
    for at in range(min(20, len(found))):
        right = data.vectors[found[at]] @ queries.vectors[at]
        if np.abs(right - scores[at]).max(initial=0) > 0.01:
            raise ValueError(f"query {at}: scores {scores[at]}, expected {right}")


def text_milliseconds(engine: Engine, found: list[np.ndarray]) -> float | None:
    """The median fetch of ten hits' texts, None where the system keeps none."""
    if not engine.texts(found[0]):
        return None
    seconds = []
    for rows in found[1:200]:
        started = time.perf_counter()
        texts = engine.texts(rows)
        seconds.append(time.perf_counter() - started)
        if len(texts) != len(rows):
            raise ValueError(f"{len(texts)} texts for {len(rows)} rows")
    return round(1e3 * statistics.median(seconds), 3)


def resident_bytes(others: list[int]) -> int:
    """Memory of this process and these, pages that they share counted once (proportional set size)."""
    return sum(_pss(process) for process in (os.getpid(), *others))


def _pss(process: int) -> int:
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
