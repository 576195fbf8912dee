"""What was measured, as one JSON object and as Markdown: a column a size, and how each cost grows."""

import json
import platform
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acceptance.machine import commit, versions

from local_llm.hardware import this_hardware
from local_llm.sizing.growth import Power, fit_power

FACTS = "facts.json"  # there once a size is measured whole
# name: what a person reads, and what one passage's share of it is told in; None: told as it is.
ROWS: dict[str, tuple[str, str | None]] = {
    "texts_disk_bytes": ("disk: texts and rows", "bytes a passage"),
    "words_disk_bytes": ("disk: index of words", "bytes a passage"),
    "vectors_disk_bytes": ("disk: vectors in the database", "bytes a passage"),
    "snapshot_disk_bytes": ("disk: snapshot", "bytes a passage"),
    "opened_memory_bytes": ("memory when opened", "bytes a passage"),
    "searched_memory_bytes": ("memory after searches", "bytes a passage"),
    "opening_cpu_seconds": ("opening, CPU s", None),
    "writing_cpu_seconds": ("writing", "CPU ms a passage"),
    "building_cpu_seconds": ("building the structure", "CPU ms a passage"),
    "search_cpu_ms": ("search by the structure, CPU ms", None),
    "search_cpu_ms 10 %": ("the same, 10 % allowed", None),
    "first_search_cpu_ms 10 %": ("the same, asked for the first time", None),
    "search_cpu_ms 1 %": ("the same, 1 % allowed", None),
    "exact_cpu_ms": ("exact search, CPU ms", None),
    "exact_cpu_ms 10 %": ("the same, 10 % allowed", None),
    "exact_cpu_ms 1 %": ("the same, 1 % allowed", None),
    "words_cpu_ms": ("search by words, CPU ms", None),
    "no_words_cpu_ms": ("the same, for a word that is nowhere", None),
    "text_cpu_ms": ("texts of ten hits, CPU ms", None),
}
BY_STRUCTURE = ("building_cpu_seconds", "search_cpu_ms", "first_search_cpu_ms")


def collected(work: Path) -> dict[str, Any]:
    """Of all sizes in the folder that were measured whole."""
    sizes = [one_size(path.parent) for path in work.glob(f"*/{FACTS}")]
    sizes.sort(key=lambda one: (one["dimension"], one["passages"]))
    return {
        "hardware": this_hardware().to_json(),
        "versions": {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, **libraries()},
        "commit": commit(),
        "sizes": sizes,
        "growth": {dimension: growth(of_dimension(sizes, dimension)) for dimension in dimensions(sizes)},
    }


def libraries() -> dict[str, str]:
    return {name: value for name, value in versions().items() if name.startswith(("faiss", "numpy"))}


def one_size(folder: Path) -> dict[str, Any]:
    """Of all rounds of reading the least of each figure: other work on the machine can only add to it."""
    facts, written = (json.loads((folder / name).read_text()) for name in (FACTS, "write.json"))
    rounds = [json.loads(path.read_text()) for path in sorted(folder.glob("read-*.json"))]
    return {**facts, **written, **{name: min(one[name] for one in rounds) for name in rounds[0]}}


def dimensions(sizes: Sequence[dict[str, Any]]) -> list[int]:
    return sorted({one["dimension"] for one in sizes})


def of_dimension(sizes: Sequence[dict[str, Any]], dimension: int) -> list[dict[str, Any]]:
    return [one for one in sizes if one["dimension"] == dimension]


def growth(sizes: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each cost that two sizes at least have; of what a structure costs, of the sizes that have one."""
    fitted = {}
    for name in ROWS:
        usable = [one for one in sizes if one["structure"] == "ivf" or not name.startswith(BY_STRUCTURE)]
        if len(usable) >= 2:
            fitted[name] = vars(fit_power([one["passages"] for one in usable], [one[name] for one in usable]))
    return fitted


def print_markdown(result: dict[str, Any]) -> None:
    for dimension in dimensions(result["sizes"]):
        sizes = of_dimension(result["sizes"], dimension)
        head = [f"{dimension} numbers", *(f"{one['passages']:,} passages" for one in sizes), "grows as"]
        print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
        for name, (told, share) in ROWS.items():
            fitted = result["growth"][dimension].get(name)
            cells = [cell(one, name, share) for one in sizes]
            print(f"| {told}{f', {share}' if share else ''} | {' | '.join(cells)} | {law(fitted)} |")
        print(f"| structure, recall@10 | {' | '.join(structure(one) for one in sizes)} | |")
    print()


def cell(one: dict[str, Any], name: str, share: str | None) -> str:
    value = one[name]
    if share is not None:
        value *= (1 if "bytes" in share else 1e3) / one["passages"]
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def structure(one: dict[str, Any]) -> str:
    return f"{one['structure']}, {one['recall']:.3f}"


def law(fitted: dict[str, float] | None) -> str:
    if fitted is None:
        return ""
    power = Power(**fitted)
    return f"n^{power.exponent:.2f} (± {100 * power.residual:.0f} %)"
