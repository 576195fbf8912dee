"""The index against LanceDB, Chroma, pgvector and bare FAISS: the same vectors, questions, target and core.

    python scripts/bench_index.py MEDQUAD_FOLDER --rows 1000000 --work FOLDER

MEDQUAD_FOLDER holds documents.jsonl and questions.{train,test}.jsonl. Its sentences are encoded and enlarged
(index_bench/sentences.py, index_bench/dataset.py); its test questions are asked one at a time, k = 10. Ids and
scores are returned; text is fetched apart. Each system runs in a process of its own held to one core, and is tuned
to recall@10 of 0.95 for every workload by the same procedure (index_bench/measure.py):

    unfiltered, and filters that allow 50 %, 10 %, 1 % and 0.1 % of the rows at random (by document), and one of 100
    topics: every other question in its own topic, the rest in any.

The peers are installed into an environment of their own below the work folder. Every part's result is kept there
and used again: a run that was cut off goes on, `--only` runs some systems, `--fresh` does their phases again.
Stores stay, so that all systems can be asked again in one run: `--phase query --rounds 3 --fresh` takes turns and
reports the round of the median QPS. Prints a table and ends with one line of JSON.

LanceDB, Chroma and pgvector keep what they acknowledged over a crash; bare FAISS keeps nothing: it is the floor of
latency on the structure that ours uses. Folders below /root are closed to PostgreSQL, which refuses to run as root.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from index_bench import dataset, peers, report, sentences
from index_bench.engine import ENGINES, PEERS

SCRIPTS = Path(__file__).parent
DEFAULT = ("ours", "faiss", "lancedb", "chroma", "pgvector")
PHASES = ("build", "tune", "query")
# On one core further threads would only stand in each other's way.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "LANCE_CPU_THREADS",
    "TOKIO_WORKER_THREADS",
)
QUIET = {"ANONYMIZED_TELEMETRY": "False", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    folder = options.work.expanduser().resolve() / str(options.rows)
    bench = Bench(options, folder, made_data(options, folder / "data"))
    for name in options.only:
        bench.part(name, "build")
        bench.part(name, "tune")
    for turn in range(options.rounds if "query" in options.phase else 0):
        for name in options.only:
            bench.part(name, f"query-{turn}")
    print(json.dumps(report.report(folder, options.only, bench.skipped)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="MEDQUAD_FOLDER")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/local-llm-bench"))
    parser.add_argument(
        "--only", nargs="+", choices=ENGINES, default=DEFAULT, metavar="SYSTEM", help=", ".join(ENGINES)
    )
    parser.add_argument("--phase", nargs="+", choices=PHASES, default=PHASES)
    parser.add_argument("--fresh", action="store_true", help="do these phases of these systems again")
    parser.add_argument("--rounds", type=int, default=1, help="ask every system so often, in turns")
    parser.add_argument("--target", type=float, default=0.95, help="recall@10 to tune for")
    parser.add_argument("--seconds", type=float, default=30, help="of questions for each workload at most")
    parser.add_argument(
        "--minutes", type=float, default=60, help="a phase of one system may take; then it is skipped"
    )
    parser.add_argument(
        "--workloads",
        nargs="+",
        choices=[workload.name for workload in dataset.WORKLOADS],
        default=(),
        metavar="WORKLOAD",
        help="tune for these only, where a filter takes a system seconds a question; default: all",
    )
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--sentences", type=int, help="encode only the first so many: for a quick trial")
    return parser.parse_args()


def made_data(options: argparse.Namespace, folder: Path) -> Path:
    if not (folder / "done.json").exists():
        print(f"making {options.rows} rows ...", file=sys.stderr, flush=True)
        real = sentences.load(options.source, options.work.expanduser().resolve(), options.sentences)
        dataset.make(folder, options.rows, real.texts, real.documents, real.vectors, real.tuning, real.questions)
    return folder


@dataclass
class Bench:
    options: argparse.Namespace
    folder: Path
    data: Path
    skipped: dict[str, str] = field(default_factory=dict)

    def part(self, name: str, phase: str) -> None:
        """One phase of one system, unless its result is there or an earlier phase of it was skipped."""
        kind = phase.partition("-")[0]
        result = self.folder / "results" / name / f"{phase}.json"
        if name in self.skipped or kind not in self.options.phase:
            return
        if self.options.fresh:
            self._forget(name, kind, result)
        if result.exists():
            return
        print(f"{name}: {phase} ...", file=sys.stderr, flush=True)
        result.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._run(name, kind, result)
        except (PartFailedError, peers.PeersUnavailableError) as error:
            self.skipped[name] = f"{phase}: {error}"
            print(f"{name} skipped: {phase}: {error}", file=sys.stderr, flush=True)

    def _forget(self, name: str, kind: str, result: Path) -> None:
        result.unlink(missing_ok=True)
        if kind == "build":
            shutil.rmtree(self._store(name), ignore_errors=True)

    def _store(self, name: str) -> Path:
        return self.folder / "stores" / name

    def _run(self, name: str, kind: str, result: Path) -> None:
        if kind == "build":  # what a run that was cut off left
            shutil.rmtree(self._store(name), ignore_errors=True)
        line = [
            *self._python(name), "-m", "index_bench.measure", kind, name, "--data", self.data,
            "--store", self._store(name), "--result", result, "--tuned", result.with_name("tune.json"),
            "--target", self.options.target, "--seconds", self.options.seconds, "--core", self.options.core,
            "--workloads", *self.options.workloads,
        ]  # fmt: skip
        child = subprocess.Popen([str(word) for word in line], env=self._environment(name), stdout=sys.stderr)
        try:
            if child.wait(timeout=60 * self.options.minutes):
                raise PartFailedError(f"exit status {child.returncode}")
        except subprocess.TimeoutExpired:
            raise PartFailedError(f"not done after {self.options.minutes:g} minutes") from None
        finally:  # SIGTERM, so that it ends the server that it may have started
            child.terminate()
            child.wait()

    def _python(self, name: str) -> list[Any]:
        return [peers.interpreter(self.options.work.expanduser().resolve()) if name in PEERS else sys.executable]

    def _environment(self, name: str) -> dict[str, str]:
        # The peers see this folder alone, so that nothing of the product is imported there.
        roots = [str(SCRIPTS)] if name in PEERS else [str(SCRIPTS), str(SCRIPTS.parent)]
        path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), *roots] if name not in PEERS else roots)
        return {**os.environ, **QUIET, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": path}


class PartFailedError(Exception):
    pass


if __name__ == "__main__":
    main()
