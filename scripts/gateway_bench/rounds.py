"""The phases that compare: whole answers and streams, every way in every round."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gateway_bench import load
from gateway_bench.engine import Behaviour
from gateway_bench.load import Seen
from gateway_bench.observe import cpu_seconds
from gateway_bench.request import chat_request
from gateway_bench.world import MODEL, Way, World

CONCURRENCIES = (1, 8, 32)
TOKENS = 32
# Streams as a busy engine gives them: 32 at once, each 50 tokens a second.
PACED_CLIENTS, PACED_SECONDS = 32, 0.02
PROMPT_SECONDS = 0.002  # within which a chunk is to be forwarded

Figures = dict[str, Any]


@dataclass(frozen=True)
class Timing:
    warm_seconds: float
    seconds: float
    rounds: int


def requests(world: World, ways: Sequence[Way], timing: Timing) -> list[Figures]:
    """Whole answers. Returns a figure for each round, way and concurrency."""
    world.behave(Behaviour(TOKENS))
    request = chat_request(MODEL, world.key, stream=False)
    figures = []
    for turn, clients, way in _turns(ways, timing, CONCURRENCIES):
        measured = _measured(world, way, request, clients, timing)
        figures.append({"way": way.name, "clients": clients, "round": turn, **_whole(measured)})
    return figures


def streams(world: World, ways: Sequence[Way], timing: Timing) -> list[Figures]:
    """Streams as fast as the engine writes them, and at an engine's pace with each chunk's delay."""
    request = chat_request(MODEL, world.key, stream=True)
    figures = []
    for turn, clients, way in _turns(ways, timing, (*CONCURRENCIES, "paced")):
        paced = clients == "paced"
        world.behave(Behaviour(TOKENS, PACED_SECONDS, stamped=True) if paced else Behaviour(TOKENS))
        measured = _measured(world, way, request, PACED_CLIENTS if paced else int(clients), timing)
        figures.append({"way": way.name, "clients": clients, "round": turn, **_streamed(measured)})
    return figures


def _turns(ways: Sequence[Way], timing: Timing, clients: Sequence[Any]) -> Iterator[tuple[int, Any, Way]]:
    """In another order each round, so that no way always follows the same one."""
    for turn in range(timing.rounds):
        first = turn % len(ways)
        for count in clients:
            for way in (*ways[first:], *ways[:first]):
                yield turn, count, way


@dataclass(frozen=True)
class Measured:
    """What the clients saw, the processor seconds that the way took meanwhile, and how busy engine and load
    generator were: near 1, a way may be faster than it looks."""

    seen: Seen
    cpu_seconds: float
    rest_busy: float

    def each(self, count: int) -> float | None:
        return round(1e6 * self.cpu_seconds / count, 1) if count else None

    def around(self, figures: Figures) -> Figures:
        told = {"rest_busy": round(self.rest_busy, 2), "errors": self.seen.errors}
        return {**figures, **told, **({"first_error": self.seen.first_error} if self.seen.errors else {})}


def _measured(world: World, way: Way, request: bytes, clients: int, timing: Timing) -> Measured:
    ends: list[tuple[float, float]] = []

    def look() -> None:
        rest = cpu_seconds(world.engine.pid) + time.process_time()
        ends.append((cpu_seconds(way.leader), rest))

    seen = load.repeated(
        way.address, request, clients, warm_seconds=timing.warm_seconds, seconds=timing.seconds, at_ends=look
    )
    (way_before, rest_before), (way_after, rest_after) = ends
    return Measured(seen, way_after - way_before, (rest_after - rest_before) / seen.seconds)


def _whole(measured: Measured) -> Figures:
    seen = measured.seen
    answered = len(seen.latencies)
    return measured.around(
        {
            "requests_per_second": round(answered / seen.seconds, 1),
            **milliseconds(seen.latencies),
            "cpu_microseconds_per_request": measured.each(answered),
        }
    )


def _streamed(measured: Measured) -> Figures:
    seen = measured.seen
    prompt = sum(delay <= PROMPT_SECONDS for delay in seen.delays) / max(1, len(seen.delays))
    return measured.around(
        {
            "chunks_per_second": round(seen.events / seen.seconds),
            "chunks_per_read": round(seen.events / max(1, seen.reads), 2),
            "cpu_microseconds_per_chunk": measured.each(seen.events),
            **({"delay": milliseconds(seen.delays), "within_2_ms": round(prompt, 4)} if seen.delays else {}),
        }
    )


def milliseconds(seconds: Sequence[float]) -> Figures:
    """p50, p90, p99 and the longest; None where nothing was measured."""
    ordered = sorted(seconds)
    if not ordered:
        return dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "longest_ms"))
    at = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in SHARES.items()}
    return {name: round(1e3 * value, 3) for name, value in {**at, "longest_ms": ordered[-1]}.items()}


SHARES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}


def median(figures: Sequence[Figures], way: str, clients: int | str, name: str) -> float | None:
    """Over the rounds. `name` may lead into a part: "delay.p99_ms"."""
    values = [value for one in of(figures, way, clients) if (value := _part(one, name)) is not None]
    return statistics.median(values) if values else None


def of(figures: Sequence[Figures], way: str, clients: int | str) -> list[Figures]:
    return [one for one in figures if (one["way"], one["clients"]) == (way, clients)]


def ratio(figures: Sequence[Figures], way: str, other: str, clients: int | str, name: str) -> float | None:
    """The median of the rounds' own ratios: what the machine did in a round befell both."""
    return _paired(figures, way, other, clients, name, lambda a, b: a / b if b else None)


def difference(figures: Sequence[Figures], way: str, other: str, clients: int | str, name: str) -> float | None:
    return _paired(figures, way, other, clients, name, lambda a, b: a - b)


def _paired(
    figures: Sequence[Figures], way: str, other: str, clients: int | str, name: str, how: Any
) -> float | None:
    pairs = zip(of(figures, way, clients), of(figures, other, clients), strict=False)  # one may be missing
    values = [(_part(one, name), _part(two, name)) for one, two in pairs]
    found = [how(a, b) for a, b in values if a is not None and b is not None]
    known: list[float] = [value for value in found if value is not None]
    return statistics.median(known) if known else None


def _part(figures: Figures, name: str) -> Any:
    value: Any = figures
    for step in name.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value
