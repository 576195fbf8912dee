"""Serving hours in the ledger: how long the server was up, and what it did, out of the numbers of /metrics.

Every gateway process adds what it counted to the entry of the hour, once a minute and when it ends, so a kill loses
a minute. Time and energy are of the machine: the first process alone adds them. The entries are of the project
`local`, as the machine's idle hours are nobody else's; what each project asked for is in its usage.
"""

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from local_llm import ledger
from local_llm.energy import EnergyMeter
from local_llm.ledger import HOUR_SECONDS
from serving.services import Services
from serving.telemetry.siblings import Snapshot

FIRST = 0  # the number of the process that tells of the machine

log = logging.getLogger("local_llm.gateway")


@dataclass(frozen=True)
class Pace:
    """Seconds, shorter in tests. Between two looks, what is seen at the second is taken to have held."""

    look: float = 10.0
    write: float = 60.0


def figures(snapshot: Snapshot) -> dict[str, Any]:
    """What one process counted since it began, summed over the labels that the ledger has no room for."""
    tokens = _by_label(snapshot, "local_llm_tokens", 1)
    stages = _by_label(snapshot, "local_llm_retrieval_seconds", 0)
    return {
        "requests": _sum(snapshot, "local_llm_requests"),
        "refused": _sum(snapshot, "local_llm_refused"),
        "answers": dict(_by_label(snapshot, "local_llm_answer_seconds", 1)),  # by strategy
        "searches": stages["all"],
        "input_tokens": tokens["input"],
        "cached_tokens": tokens["cached"],
        "output_tokens": tokens["output"],
        "gateway_cpu_seconds": _sum(snapshot, "local_llm_gateway_cpu_seconds"),
    }


class ServingHours:
    """Of one gateway process, on its event loop. Call begin(), then look() now and then, and end()."""

    def __init__(
        self,
        services: Services,
        pace: Pace = Pace(),
        clock: Callable[[], float] = time.time,
        meter: EnergyMeter | None = None,
    ):
        """`clock` tells the hour; `meter`: None for this machine's."""
        self._services = services
        self._pace = pace
        self._clock = clock
        self._given = meter
        self._meter: EnergyMeter | None = None
        self._first = services.siblings.number == FIRST
        self._written: dict[str, Any] = {}  # of all that is counted
        self._writing = threading.Lock()  # a write goes on when who waits for it is cancelled
        self._seconds = {"seconds": 0.0, "engine_seconds": 0.0, "busy_seconds": 0.0}
        self._engine_up = self._busy = False

    async def begin(self) -> None:
        if self._first:
            meter = await asyncio.to_thread(EnergyMeter) if self._given is None else self._given
            meter.start()
            self._meter = meter
        self._looked = self._wrote = time.monotonic()
        self._hour = self._hour_now()

    async def look(self) -> None:
        """Adds the time since the last look, and writes where that is due."""
        if self._first:
            seen, snapshots = await asyncio.gather(
                self._services.readiness.look(), self._services.siblings.snapshots()
            )
            self._engine_up = seen.engine.up
            self._busy = any(_sum(one, "local_llm_questions_running") for one in snapshots.values())
        self._add_time()
        if self._hour != self._hour_now() or time.monotonic() - self._wrote >= self._pace.write:
            await self.write()

    async def end(self) -> None:
        """Writes what is left; the engine is not asked again."""
        self._add_time()
        await self.write()
        if self._meter is not None:
            self._meter.stop()

    async def write(self) -> None:
        """What cannot be written now is written with the next."""
        hour, counted = self._hour, self._counted()
        self._hour, self._wrote = self._hour_now(), time.monotonic()
        try:
            await asyncio.to_thread(self._add, hour, counted, self._about())
        except Exception as error:  # a full disk, a busy database
            log.warning("the hour's figures could not be written, and wait: %s", error)

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._pace.look)
            try:
                await self.look()
            except Exception as error:  # the next look counts the time that this one did not
                log.error("the hour's figures could not be counted", exc_info=error)

    def _counted(self) -> dict[str, Any]:
        counted = figures(self._services.siblings.own())
        if self._meter is not None:
            counted |= {"energy_joules": self._meter.joules(), **self._seconds}
        return counted

    def _about(self) -> dict[str, Any]:
        """What does not add up."""
        if self._meter is None:
            return {}
        settings = self._services.settings
        return {
            "model": self._services.base.name,
            "engine_here": not settings.engine.urls,
            "energy_of": self._meter.facts()["energy_of"],
        }

    def _add_time(self) -> None:
        moment = time.monotonic()
        passed, self._looked = moment - self._looked, moment
        if self._first:
            self._seconds["seconds"] += passed
            self._seconds["engine_seconds"] += passed if self._engine_up else 0
            self._seconds["busy_seconds"] += passed if self._busy else 0

    def _add(self, hour: int, counted: dict[str, Any], about: dict[str, Any]) -> None:
        """What was counted since the last write that came through."""
        state = self._services.state
        with self._writing:
            facts = {**_difference(counted, self._written), **about}
            ledger.add_to_hour(state, state.local_project_id(), "serving", hour, facts)
            self._written = counted

    def _hour_now(self) -> int:
        moment = int(self._clock())
        return moment - moment % HOUR_SECONDS


@asynccontextmanager
async def counting(services: Services, pace: Pace = Pace()) -> AsyncIterator[ServingHours]:
    """The block's hours go into the ledger."""
    hours = ServingHours(services, pace)
    await hours.begin()
    task = asyncio.create_task(hours.keep())
    try:
        yield hours
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await hours.end()


def _sum(snapshot: Snapshot, name: str) -> float:
    return sum(value for _, value in snapshot[name])


def _by_label(snapshot: Snapshot, name: str, place: int) -> defaultdict[str, float]:
    """How much, or of timings how many, by the label in `place`."""
    found: defaultdict[str, float] = defaultdict(float)
    for key, value in snapshot[name]:
        found[key[place]] += sum(value[:-1]) if isinstance(value, list) else value
    return found


def _difference(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in now.items():
        if isinstance(value, dict):
            found[name] = _difference(value, before.get(name) or {})
        else:
            found[name] = None if value is None else round(value - (before.get(name) or 0), 3)
    return found
