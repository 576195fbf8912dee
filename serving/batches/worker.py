"""The task of a gateway that works on batches. Several gateways share them by leases."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from local_llm.errors import UnavailableError
from serving.batches import leases
from serving.batches.asking import FIRST_PAUSE_SECONDS, Asker
from serving.batches.leases import Lease, LeaseLostError
from serving.batches.run import RENEW_SECONDS, BatchRun
from serving.services import Services

# In work in one process. Each has a task a line that is asked; how many are asked is for the admission to say.
MOST_BATCHES = 8
# Beside these, such as are only brought to their end.
MOST_ENDING = 2
# After an error of ours (a full disk) a batch waits so long, and goes on.
PAUSE_SECONDS = 30.0

log = logging.getLogger("local_llm.batches")


@dataclass(frozen=True)
class Pace:
    """Seconds, shorter in tests."""

    poll: float = 1.0
    renew: float = RENEW_SECONDS
    lease: float = leases.LEASE_SECONDS
    first_pause: float = FIRST_PAUSE_SECONDS


class BatchWorker:
    def __init__(self, services: Services, pace: Pace = Pace()):
        self._services = services
        self._pace = pace
        self._asker = Asker(services, pace.first_pause)
        self._runs: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is something to do: it is not waited for the next look. Only on the event loop."""
        self._woken.set()

    async def work(self) -> None:
        """Until cancelled; what is at work then goes back to where others find it."""
        try:
            await asyncio.to_thread(self._remove_leftovers)
            while True:
                await self._claim_all()
                self._woken.clear()
                async with _no_longer_than(self._pace.poll):
                    await self._woken.wait()
        finally:
            for run in self._runs:
                run.cancel()
            await asyncio.gather(*self._runs, return_exceptions=True)

    async def _claim_all(self) -> None:
        try:
            while len(self._runs) < MOST_BATCHES + MOST_ENDING:
                lease = await asyncio.to_thread(
                    leases.claim_next,
                    self._services.state,
                    lease_seconds=self._pace.lease,
                    ending_only=len(self._runs) >= MOST_BATCHES,
                )
                if lease is None:
                    return
                run = asyncio.create_task(self._run(lease))
                self._runs.add(run)
                run.add_done_callback(self._ended)
        except Exception as error:  # the database is busy or full: looked at again with the next poll
            log.error("batches could not be claimed", exc_info=error)

    def _ended(self, run: asyncio.Task[None]) -> None:
        self._runs.discard(run)
        self._woken.set()

    async def _run(self, lease: Lease) -> None:
        services, pause = self._services, 0.0
        try:
            row = await asyncio.to_thread(leases.load, services.state, lease)
            await BatchRun(services, lease, row, self._asker, self._pace.renew).run()
        except LeaseLostError as error:
            log.warning("%s", error.message)
        except Exception as error:
            pause = PAUSE_SECONDS
            log.error("batch %s is interrupted for %.0f s", lease.batch_id, pause, exc_info=error)
        finally:
            with suppress(UnavailableError):  # then it runs out by itself
                await asyncio.to_thread(leases.release, services.state, lease, pause_seconds=pause)

    def _remove_leftovers(self) -> None:
        """Folders of batches that ended right before a kill. One that stays does no harm."""
        with suppress(OSError, SQLAlchemyError, UnavailableError):
            for folder in self._services.settings.place.batches.iterdir():
                if not leases.is_unfinished(self._services.state, folder.name):
                    shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def working(services: Services, pace: Pace = Pace()) -> AsyncIterator[BatchWorker]:
    """A worker at work during the block."""
    worker = BatchWorker(services, pace)
    task = asyncio.create_task(worker.work())
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _no_longer_than(seconds: float) -> AsyncIterator[None]:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            yield
