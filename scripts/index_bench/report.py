"""The figures as a table and as one JSON object."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from index_bench.dataset import WORKLOADS

NAMES = [workload.name for workload in WORKLOADS]
BARE = "faiss"
NOT_DURABLE = {"ours", "faiss", "faiss-hnsw"}


def report(folder: Path, systems: Sequence[str], skipped: dict[str, str]) -> dict[str, Any]:
    from local_llm.hardware import this_hardware

    data = json.loads((folder / "data" / "done.json").read_text())
    found = {name: measured(folder / "results" / name, data["rows"]) for name in systems}
    figures = {name: value for name, value in found.items() if value}
    _print_stores(figures)
    for name in NAMES:
        _print_workload(name, figures)
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}")
    compared = against(figures)
    for name, value in compared.items():
        print(f"{name}: {value}")
    return {
        "hardware": this_hardware().to_json(), "data": data, "systems": figures, "skipped": skipped,
        "compared": compared,
    }  # fmt: skip


def measured(results: Path, rows: int) -> dict[str, Any] | None:
    """What is there of one system; of several rounds, for each workload the one of the median QPS."""
    built, rounds = (
        results / "build.json",
        [json.loads(path.read_text()) for path in sorted(results.glob("query-*"))],
    )
    if not built.exists() or not rounds:
        return None
    build = json.loads(built.read_text())
    names = [name for name in NAMES if name in rounds[0]["workloads"]]
    return {
        "versions": rounds[0]["versions"],
        "build_seconds": round(build["seconds"], 1),
        "build_cpu_seconds": round(build["cpu_seconds"], 1),
        "open_seconds": round(statistics.median(r["open_seconds"] for r in rounds), 2),
        "disk_bytes_per_vector": round(build["disk_bytes"] / rows),
        "resident_bytes_per_vector": round(statistics.median(r["resident_bytes"] for r in rounds) / rows),
        "text_milliseconds": statistics.median([r["text_milliseconds"] for r in rounds])
        if rounds[0]["text_milliseconds"] is not None
        else None,
        "workloads": {name: _median_round([r["workloads"][name] for r in rounds]) for name in names},
    }


def _median_round(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    ordered = sorted(rounds, key=lambda one: one["qps"])
    return {**ordered[len(ordered) // 2], "qps_of_rounds": [one["qps"] for one in rounds]}


def against(figures: dict[str, Any]) -> dict[str, float]:
    """Ours over the best durable peer, and over bare FAISS."""
    if "ours" not in figures:
        return {}
    durable = {name: value for name, value in figures.items() if name not in NOT_DURABLE}
    result: dict[str, float] = {}
    for workload in NAMES:
        ours = figures["ours"]["workloads"].get(workload)
        others = [value["workloads"][workload] for value in durable.values() if workload in value["workloads"]]
        if ours and others:
            best = max(others, key=lambda one: one["qps"])
            result[f"{workload}: QPS over the best durable peer's"] = round(ours["qps"] / best["qps"], 2)
            result[f"{workload}: p99 over that peer's"] = round(
                ours["p99_milliseconds"] / best["p99_milliseconds"], 2
            )
    if BARE in figures and "unfiltered" in figures["ours"]["workloads"]:
        ours, bare = (figures[name]["workloads"]["unfiltered"] for name in ("ours", BARE))
        result["unfiltered: p50 over bare FAISS"] = round(ours["p50_milliseconds"] / bare["p50_milliseconds"], 2)
    return result


def _print_stores(figures: dict[str, Any]) -> None:
    print(f"{'':18}  build s    cpu s   open s  disk B/row  memory B/row  ten texts ms  versions")
    for name, value in figures.items():
        text = value["text_milliseconds"]
        print(
            f"{name:18} {value['build_seconds']:8.0f} {value['build_cpu_seconds']:8.0f}"
            f" {value['open_seconds']:8.2f} {value['disk_bytes_per_vector']:11}"
            f" {value['resident_bytes_per_vector']:13} {'-' if text is None else f'{text:.2f}':>13}"
            f"  {', '.join(f'{k} {v}' for k, v in value['versions'].items())}"
        )


def _print_workload(name: str, figures: dict[str, Any]) -> None:
    print(f"\n{name:18}      QPS   p50 ms   p99 ms  recall@10  questions  searched by")
    for system, value in figures.items():
        one = value["workloads"].get(name)
        if one:
            way = f"{one['strategy']} {one['effort'] or ''}"
            print(
                f"{system:18} {one['qps']:8.1f} {one['p50_milliseconds']:8.3f} {one['p99_milliseconds']:8.3f}"
                f" {one['recall']:10.4f} {one['questions']:10}  {way}"
            )
