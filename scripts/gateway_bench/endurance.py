"""The phases that a gateway must live through: many streams held, clients killed, a hundred thousand requests."""

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from gateway_bench import load
from gateway_bench.engine import Behaviour
from gateway_bench.observe import Observed, observe
from gateway_bench.request import chat_request
from gateway_bench.rounds import milliseconds
from gateway_bench.world import MODEL, Way, World, clean_environment

MIB = 1024 * 1024
# Held streams get a token twice a second.
HELD_STEP_SECONDS = 0.5
HELD_LOOK_SECONDS = 1.0
# Those who leave would have had answers for minutes.
LEAVING_STEP_SECONDS = 0.05
LEAVING_TOKENS = 4000
LEAVING_ROUNDS = 4
MIDST_SECONDS = 1.0  # clients get so much of their answers before they are killed
PATIENCE_SECONDS = 120.0  # until all have come through: a slow gateway is none that loses requests
FREE_SECONDS = 10.0  # longer is not waited for
LOOK_SECONDS = 0.01
MEMORY_POINTS = 10
MEMORY_CLIENTS = 32
MEMORY_TOKENS = 8

Figures = dict[str, Any]


def hold(world: World, way: Way, streams: int, seconds: float) -> Figures:
    """So many streams at once, each held so long: every one must get all its events and its end."""
    world.behave(Behaviour(max(2, round(seconds / HELD_STEP_SECONDS)), HELD_STEP_SECONDS, stamped=True))
    requests = itertools.repeat(chat_request(MODEL, world.key, stream=True), streams)
    before, during = observe(way.leader), []
    looks = load.Looks(HELD_LOOK_SECONDS, lambda: during.append((world.counts().open, observe(way.leader))))
    seen = load.once(way.address, requests, streams, looks)
    after = observe(way.leader)
    cpu = after.cpu_seconds - before.cpu_seconds
    return {
        "streams": streams,
        "seconds": round(seen.seconds, 1),
        "most_open_at_once": max((opened for opened, _ in during), default=None),
        "finished": len(seen.latencies),
        "dropped": streams - len(seen.latencies),
        "first_error": seen.first_error,
        "delay": milliseconds(seen.delays),
        "memory_mib": {
            "before": _mib(before), "most": max((_mib(one) for _, one in during), default=None),
            "after": _mib(after),
        },
        "cpu_microseconds_per_chunk": round(1e6 * cpu / max(1, seen.events), 1),
    }  # fmt: skip


def leave(world: World, way: Way, clients: int, rounds: int = LEAVING_ROUNDS) -> list[Figures]:
    """Clients killed amid their answers, again and again, streams and whole answers. The first round of each kind
    is not told: what a gateway opens once and keeps is no leftover."""
    world.behave(Behaviour(LEAVING_TOKENS, LEAVING_STEP_SECONDS))
    found = []
    for kind in ("streams", "whole answers"):
        request = chat_request(MODEL, world.key, stream=kind == "streams")
        told = [_left(world, way, clients, request) for _ in range(rounds)][1:]
        found.append(
            {
                "clients": clients,
                "answers": kind,
                "seconds_until_free": [one["seconds"] for one in told],
                "still_open": [one["still_open"] for one in told],
                "descriptors": [told[0]["before"].descriptors, *(one["after"].descriptors for one in told)],
                "memory_mib": [_mib(told[0]["before"]), *(_mib(one["after"]) for one in told)],
            }
        )
    return found


def _left(world: World, way: Way, clients: int, request: bytes) -> Figures:
    before, open_before = observe(way.leader), world.counts().open
    line = [sys.executable, "-m", "gateway_bench.leaving", "--port", way.port, "--clients", clients]
    with tempfile.TemporaryFile() as asked:
        asked.write(request)
        asked.seek(0)
        child = subprocess.Popen([str(word) for word in line], stdin=asked, env=clean_environment())
    try:
        _until(lambda: world.counts().open == open_before + clients, f"{clients} requests did not reach the engine")
        time.sleep(MIDST_SECONDS)
    finally:
        child.kill()
        killed = time.monotonic()
        child.wait()
    while (still := world.counts().open - open_before) and time.monotonic() - killed < FREE_SECONDS:
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - killed
    time.sleep(MIDST_SECONDS)  # what is left now is left over
    return {"seconds": round(seconds, 2), "still_open": still, "before": before, "after": observe(way.leader)}


def _until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise load.LoadError(f"{otherwise} within {PATIENCE_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)


def memory(world: World, way: Way, requests: int) -> Figures:
    """The gateway's memory over so many requests, every other one a stream."""
    world.behave(Behaviour(MEMORY_TOKENS))
    points: list[Observed] = []
    kinds = [chat_request(MODEL, world.key, stream=stream) for stream in (False, True)]

    def asked() -> Iterator[bytes]:
        for number in range(requests):
            if number % max(1, requests // MEMORY_POINTS) == 0:
                points.append(observe(way.leader))
            yield kinds[number % 2]

    seen = load.once(way.address, asked(), MEMORY_CLIENTS)
    points.append(observe(way.leader))
    grown = points[-1].memory_bytes - points[1].memory_bytes
    return {
        "requests": requests,
        "answered": len(seen.latencies),
        "errors": seen.errors,
        "first_error": seen.first_error,
        "memory_mib": [_mib(point) for point in points],
        "bytes_per_request_after_the_first_tenth": round(grown / (requests * (1 - 1 / MEMORY_POINTS)), 1),
        "descriptors": [points[0].descriptors, points[-1].descriptors],
        "seconds": round(seen.seconds, 1),
    }


def _mib(observed: Observed) -> float:
    return round(observed.memory_bytes / MIB, 1)
