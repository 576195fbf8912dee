"""How the costs of a collection grow with its passages, on this machine and with the product's own store.

    python scripts/bench_growth.py --work FOLDER
    python scripts/bench_growth.py --work FOLDER --dimension 768 --passages 30000
    python scripts/bench_growth.py --work FOLDER --report-only --out docs/figures/growth.json

A made corpus (growth_bench/corpus.py) of each size is written, indexed, opened and searched: bytes on the disk,
memory, processor seconds of writing, building, opening and of single searches (growth_bench/measure.py). Each size
is written by a process of its own, held to one thread, and read by three, of which the least of each figure counts:
what else the machine does can only add. Figures are kept in FOLDER: a run that was cut off goes on, a further call
adds sizes or dimensions, `--fresh` measures the named ones again.

Prints the figures and how each grows (growth_bench/report.py) as Markdown and ends with one line of JSON, which
--out keeps: what scripts/sizing.py reckons with.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from growth_bench import report

SCRIPTS = Path(__file__).parent
SIZES = (10_000, 30_000, 100_000, 300_000)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    options = arguments()
    work = options.work.expanduser().resolve()
    if not options.report_only:
        measure(work, options)
    result = report.collected(work)
    report.print_markdown(result)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--passages", type=int, nargs="+", default=SIZES)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--questions", type=int, default=100, help="asked of each size")
    parser.add_argument("--rounds", type=int, default=3, help="of reading; the least of each figure counts")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured")
    parser.add_argument("--report-only", action="store_true", help="of what was measured before")
    parser.add_argument("--out", type=Path, metavar="FILE")
    return parser.parse_args()


def measure(work: Path, options: argparse.Namespace) -> None:
    """Each turn reads every size once, so that a busy minute of the machine does not befall one size alone."""
    folders = {passages: work / f"{options.dimension}-{passages}" for passages in options.passages}
    if options.fresh:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
    missing = {passages: folder for passages, folder in folders.items() if not (folder / report.FACTS).exists()}
    for passages, folder in missing.items():
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "write.json").exists():
            shutil.rmtree(folder / "store", ignore_errors=True)  # cut off in the middle
            run("write", "write", folder, passages, options)
    for turn in range(options.rounds):
        for passages, folder in missing.items():
            if not (folder / f"read-{turn}.json").exists():
                run("read", f"read-{turn}", folder, passages, options)
    for passages, folder in missing.items():
        facts = {"passages": passages, "dimension": options.dimension, "rounds": options.rounds}
        (folder / report.FACTS).write_text(json.dumps(facts))
        shutil.rmtree(folder / "store")  # gigabytes that nothing asks for any more


def run(phase: str, name: str, folder: Path, passages: int, options: argparse.Namespace) -> None:
    line = [sys.executable, "-m", "growth_bench.measure", phase, "--passages", str(passages)]
    line += ["--dimension", str(options.dimension), "--questions", str(options.questions)]
    line += ["--store", str(folder / "store"), "--result", str(folder / f"{name}.json")]
    paths = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)])
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": paths}
    print(f"{passages:>9} passages of {options.dimension}: {name}", file=sys.stderr, flush=True)
    done = subprocess.run(line, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{phase} of {passages} passages ended with {done.returncode}; what was measured is in {folder}")


if __name__ == "__main__":
    main()
