"""What the gateway costs: requests and streams direct, through nginx, LiteLLM's proxy, bare Python, and ours.

    python scripts/bench_gateway.py --work FOLDER

A synthetic engine (gateway_bench/engine.py) answers at once in vLLM's bytes: the gateway is what is measured. Each
way has one process on a core of its own; engine and load generator share another (`--cores`). With one core they
stand in each other's way, and the first line printed says so. LiteLLM and ours check the key that is sent.

    requests   whole answers at 1, 8 and 32 clients
    streams    32 chunks each, as fast as the engine writes them; and 32 streams of 50 chunks/s, each chunk timed
               from the engine's write to the client's read
    hold       1,000 slow streams at once: none may be dropped
    leave      500 clients killed amid their answers: what do they leave behind, and for how long
    memory     over 100,000 requests
    retrieval  the same question with context and without: what is added beyond encoding and search
    engine     the real engine direct and through the server, 8 at once: needs --home with a base model, and is not
               done by default

The first two compare all ways, in rounds that take turns; a ratio is the median of the rounds' own. The next four
look at ours alone. "cpu us" is the gateway's own processor time. "rest busy" is the share of its core that engine
and load generator took: where it is near 1, the way is faster than it looks.

nginx is this machine's (Debian: apt-get install nginx-light), or Debian's package unpacked below the work folder;
LiteLLM is installed into an environment of its own there. Prints tables and ends with one line of JSON.
"""

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway_bench import endurance, real_engine, report, retrieval, rounds
from gateway_bench.load import LoadError
from gateway_bench.ways import WAYS, made_home
from gateway_bench.world import Cores, Way, WayUnavailableError, World

from local_llm import offline
from local_llm.hardware import this_hardware

SYNTHETIC = ("requests", "streams", "hold", "leave", "memory", "retrieval")
PHASES = (*SYNTHETIC, "engine")


def main() -> int:
    options = arguments()
    offline.apply()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    work = options.work.expanduser().resolve()
    hardware = this_hardware()  # before this process is held to a core
    result: dict[str, Any] = {"hardware": hardware.to_json(), "cores": str(options.cores), "skipped": {}}
    found: dict[str, Any] = {}
    print(f"{hardware}; {options.cores}")
    if set(options.phase) & set(SYNTHETIC):
        synthetic(options, work, result, found)
    if "engine" in options.phase:
        try:
            found["engine"] = real_engine.compare(options.home, work, options.rounds)
            report.print_plain("the real engine, direct and through us", found["engine"])
        except (WayUnavailableError, LoadError) as error:
            result["skipped"]["engine"] = str(error)
            print(f"engine failed: {error}")
    goals = report.judged(found)
    report.print_goals(goals)
    print(json.dumps({**result, "goals": goals, **found}))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/local-llm-bench/gateway"))
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--phase", nargs="+", choices=PHASES, default=SYNTHETIC)
    parser.add_argument(
        "--cores", nargs=2, type=int, metavar=("GATEWAY", "REST"), help="default: the last one, the first one"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="that count of each measurement")
    parser.add_argument("--warm", type=float, default=1, help="seconds before them")
    parser.add_argument("--streams", type=int, default=1000, help="to hold")
    parser.add_argument("--hold-seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=500, help="to kill")
    parser.add_argument("--requests", type=int, default=100_000, help="to watch the memory over")
    parser.add_argument("--settings", type=Path, help="settings file for our gateway")
    parser.add_argument("--home", type=Path, help="LOCAL_LLM_HOME with the base model for the phase `engine`")
    options = parser.parse_args()
    allowed = sorted(os.sched_getaffinity(0))
    options.cores = Cores(*(options.cores or (allowed[-1], allowed[0])))
    if "engine" in options.phase and options.home is None:
        parser.error("the phase `engine` needs --home")
    return options


def synthetic(options: argparse.Namespace, work: Path, result: dict[str, Any], found: dict[str, Any]) -> None:
    work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work / "home", ignore_errors=True)
    settings, key = made_home(work / "home")
    with World(work, options.cores, key, settings.place.socket("engine"), options.settings) as world:
        ways = started(world, options.only, result["skipped"])
        result["versions"] = {way.name: dict(way.versions) for way in ways}
        timing = rounds.Timing(options.warm, options.seconds, options.rounds)
        if "requests" in options.phase:
            found["requests"] = rounds.requests(world, ways, timing)
            report.print_compared("whole answers", found["requests"], report.WHOLE)
        if "streams" in options.phase:
            found["streams"] = rounds.streams(world, ways, timing)
            report.print_compared("streams", found["streams"], report.STREAMED)
        for way in ways:
            if way.name == "ours":
                endured(options, world, way, result["skipped"], found)


def started(world: World, names: list[str], skipped: dict[str, str]) -> list[Way]:
    ways = []
    for name in names:
        print(f"starting {name} ...", file=sys.stderr, flush=True)
        try:
            ways.append(WAYS[name](world))
        except WayUnavailableError as error:
            skipped[name] = str(error)
            print(f"{name} skipped: {error}")
    return ways


def endured(
    options: argparse.Namespace, world: World, way: Way, skipped: dict[str, str], found: dict[str, Any]
) -> None:
    parts: dict[str, Callable[[], Any]] = {
        "hold": lambda: endurance.hold(world, way, options.streams, options.hold_seconds),
        "leave": lambda: endurance.leave(world, way, options.clients),
        "memory": lambda: endurance.memory(world, way, options.requests),
        "retrieval": lambda: retrieval.added(world, way),
    }
    for name, measure in parts.items():
        if name not in options.phase:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            found[name] = measure()
            report.print_plain(name, found[name])
        except (LoadError, WayUnavailableError) as error:
            skipped[name] = str(error)
            print(f"{name} failed: {error}")


if __name__ == "__main__":
    sys.exit(main())
