"""From a part's figures to the lines of the table: what physics allows, what was measured, and the goal."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from acceptance.bench import Figures

# Goals. Source: docs/benchmarks.md, "On a GPU".
UTILISATION, OVER_TRL = 0.45, 1.3
OVER_FLOOR, FLOOR_BATCHES = 1.25, (1, 16)
OVER_BASELINE = 1.5
OF_DIRECT = 0.98
# The run that makes what the others train.
MODEL = "model"


@dataclass(frozen=True)
class Line:
    """`figure` and `floor` in `unit`. `value` is what the goal is about, where there is a goal."""

    what: str
    figure: float
    unit: str
    floor: float | None = None
    value: float | None = None
    goal: float | None = None
    at_least: bool = True  # else: at most

    @property
    def gap(self) -> float | None:
        """What the figure is above the floor, in its unit."""
        return None if self.floor is None else self.figure - self.floor

    @property
    def of_goal(self) -> float | None:
        """1 and above: reached."""
        if self.value is None or self.goal is None:
            return None
        return self.value / self.goal if self.at_least else self.goal / self.value

    @property
    def reached(self) -> bool | None:
        return None if self.of_goal is None else self.of_goal >= 1

    def to_json(self) -> Figures:
        return {**asdict(self), "gap": self.gap, "of_goal": self.of_goal, "reached": self.reached}


def nothing(_: Mapping[str, Figures]) -> Sequence[Line]:
    return ()


def training(runs: Mapping[str, Figures]) -> Sequence[Line]:
    found = []
    for name, run in runs.items():
        if name == MODEL:
            continue
        goal = UTILISATION if name == "ours" else None
        found.append(
            Line(f"{name}: a step, utilisation", 1e3 * run["step_seconds"], "ms", 1e3 * run["floor_seconds"],
                 run["utilisation"], goal)
        )  # fmt: skip
        found.append(Line(f"{name}: tokens", run["tokens_per_second"], "/s"))
        found.append(Line(f"{name}: peak memory", run["peak_memory_gib"], "GiB"))
    if {"ours", "plain TRL"} <= runs.keys():
        ratio = runs["ours"]["tokens_per_second"] / runs["plain TRL"]["tokens_per_second"]
        found.append(Line("ours over plain TRL", ratio, "x", value=ratio, goal=OVER_TRL))
    return found


def tried(runs: Mapping[str, Figures]) -> Sequence[Line]:
    found = [Line(f"{name}: tokens", run["tokens_per_second"], "/s") for name, run in runs.items()]
    ours = runs.get("ours")
    others = [(name, run) for name, run in runs.items() if name != "ours" and ours is not None]
    for name, run in others:
        assert ours is not None
        found.append(Line(f"{name} over ours", run["tokens_per_second"] / ours["tokens_per_second"], "x"))
    return found


def search(runs: Mapping[str, Figures]) -> Sequence[Line]:
    found = []
    for name, run in runs.items():
        floor = run["floor_ms"]
        for batch in run["batches"]:
            goal = OVER_FLOOR if batch["batch"] in FLOOR_BATCHES else None
            for kind in ("ms", "filtered_ms"):
                what = f"{name}, {batch['batch']} at once{', filtered' if kind == 'filtered_ms' else ''}"
                over = batch[kind] / floor
                found.append(Line(what, batch[kind], "ms", floor, over, goal, at_least=False))
    return found


def encoder(runs: Mapping[str, Figures]) -> Sequence[Line]:
    found = []
    for one in runs.get("encoder", {}).get("lengths", ()):
        what = f"{one['tokens']} tokens"
        found.append(
            Line(f"{what}: 1,000 passages, over baseline", 1e3 * one["seconds_per_thousand"], "ms",
                 1e3 * one["floor_seconds_per_thousand"], one["over_baseline"], OVER_BASELINE)
        )  # fmt: skip
        found.append(Line(f"{what}: passages", one["passages_per_second"], "/s"))
        found.append(Line(f"{what}: utilisation", one["utilisation"], ""))
    return found


def serving(runs: Mapping[str, Figures]) -> Sequence[Line]:
    run = runs.get("engine", {})
    found = []
    for adapters, rate in run.get("tokens_per_second_by_adapters", {}).items():
        found.append(Line(f"{adapters} adapters: tokens", rate, "/s"))
    if "gateway" in run:
        ratio = run["gateway"]["ratio"]
        found.append(Line("gateway over direct", ratio, "x", value=ratio, goal=OF_DIRECT))
    if "first_answer" in run:
        found.append(Line("published to first answer", run["first_answer"]["seconds"], "s"))
    for name, what in (("first_start_seconds", "first start"), ("restart_seconds", "restart")):
        if name in run:
            found.append(Line(f"{what} until ready", run[name], "s"))
    return found
