"""A call of the script: part after part within its minutes, each result on the disk before the next begins."""

import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from acceptance.bench import Bench, Figures
from acceptance.children import Outcome, run_alone
from acceptance.lines import Line
from acceptance.parts import MACHINE, Part, Run
from local_llm import processes
from local_llm.cli.output import talk
from local_llm.fileio import write_json
from local_llm.hardware import this_hardware

# A run that cannot come to its figures in what is left is not begun.
LEAST_SECONDS = 20.0
# Limits are those of a GPU box that nobody else uses; tests run where others do.
SMALL_LIMIT_SECONDS = 1800.0
NO_TIME = "out of time: --minutes were used up"
NO_GPU = "no CUDA device; --small runs the same at tiny sizes on the CPU"
# Runs that told figures before they were cut off, too, have something to say.
TELLING = ("done", "out of time", "out of memory", "crashed", "failed")


@dataclass
class PartResult:
    """`judged`: whether goals count; at tiny sizes on a CPU they say nothing."""

    part: Part
    judged: bool
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def lines(self) -> Sequence[Line]:
        return self._lines() if self.judged else [replace(line, goal=None) for line in self._lines()]

    def _lines(self) -> Sequence[Line]:
        told = {
            name: outcome.figures
            for name, outcome in self.outcomes.items()
            if outcome.figures and outcome.status in TELLING
        }
        try:
            return self.part.judge(told)
        except KeyError:  # a run was cut off before it had told what the table needs
            whole = {name: told[name] for name in told if self.outcomes[name].status == "done"}
            return self.part.judge(whole)

    @property
    def status(self) -> str:
        """The worst of its runs; "held" and "measured" for "done"."""
        statuses = [outcome.status for outcome in self.outcomes.values()]
        bad = next((status for status in statuses if status not in ("done", "skipped", "not run")), None)
        if bad is not None:
            return bad
        if "done" not in statuses:
            return statuses[0]
        return "held" if self.part.kind == "must hold" else "measured"

    @property
    def reason(self) -> str:
        return "; ".join(f"{name}: {one.reason}" for name, one in self.outcomes.items() if one.reason)

    def to_json(self) -> Figures:
        return {
            "kind": self.part.kind,
            "proves": self.part.proves,
            "status": self.status,
            "runs": {name: asdict(outcome) for name, outcome in self.outcomes.items()},
            "lines": [line.to_json() for line in self.lines],
        }


class Session:
    def __init__(self, work: Path, out: Path, *, small: bool, minutes: float | None):
        self.work, self.out, self.small = work, out, small
        self.results: list[PartResult] = []
        self._began = time.monotonic()
        self._started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._seconds = float("inf") if minutes is None else 60 * minutes
        self._machine: Mapping[str, Any] = {}

    def run(self, chosen: Sequence[Part]) -> list[PartResult]:
        """All of them, however each ends."""
        self._run_part(MACHINE)
        self._machine = self.results[0].outcomes["machine"].figures
        for part in chosen:
            self._run_part(part)
        return self.results

    @property
    def left_seconds(self) -> float:
        return self._seconds - (time.monotonic() - self._began)

    def _run_part(self, part: Part) -> None:
        result = PartResult(part, judged=not self.small)
        self.results.append(result)
        for run in part.runs:
            talk(f"{part.name}: {run.name} ...")
            result.outcomes[run.name] = outcome = self._run(part, run)
            talk(f"{part.name}: {run.name}: {outcome.status} after {outcome.seconds:.1f} s {outcome.reason}")
            self.save()

    def _run(self, part: Part, run: Run) -> Outcome:
        reason = self.hindrance(part, run)
        if reason is not None:
            return Outcome("not run" if reason == NO_TIME else "skipped", reason=reason)
        log = self.work / "logs" / f"{part.name}-{run.name.replace(' ', '-')}.log"
        bench = Bench(self.work, self.small, self._machine)
        limit = min(SMALL_LIMIT_SECONDS if self.small else run.limit_seconds, self.left_seconds)
        try:
            return run_alone(run.target, bench, limit_seconds=limit, log=log)
        finally:
            for records in self.work.glob("**/run"):  # a server that a killed run left behind
                processes.end_leftovers(records)

    def hindrance(self, part: Part, run: Run) -> str | None:
        """Why a run need not be begun; None: nothing is known."""
        if self.left_seconds < LEAST_SECONDS:
            return NO_TIME
        absent = missing(run.target.packages)
        if absent:
            return f"not installed: {', '.join(absent)}"
        if part is not MACHINE and not self._machine.get("copy_bytes_per_second"):
            return NO_GPU if not self.small else "the machine could not be measured"
        return None

    def to_json(self) -> Figures:
        return {
            "script": "gpu_acceptance",
            "small": self.small,
            "started": self._started,
            "seconds": round(time.monotonic() - self._began, 1),
            "hardware": this_hardware().to_json(),
            "machine": dict(self._machine) or self.results[0].outcomes.get("machine", Outcome("not run")).figures,
            "parts": {result.part.name: result.to_json() for result in self.results if result.outcomes},
        }

    def save(self) -> Figures:
        """Returns: what stands in the file now."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        kept = self.to_json()
        write_json(self.out, kept)
        return kept


def missing(packages: Sequence[str]) -> list[str]:
    """Of these importable names, the ones that nothing here is installed as."""
    return [name for name in packages if importlib.util.find_spec(name) is None]
