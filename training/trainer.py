"""The trainer: takes queued jobs one at a time and runs each in a child process of its own.

A child that dies takes nothing with it: its job goes back into the queue, up to three times, and with less memory
to take if the kernel killed it. When the trainer itself was killed, the next one ends what it left running before
it takes anything.
"""

import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from local_llm import offline
from local_llm.adapters import AdapterRegistry
from local_llm.device import require_sharing, training_device, training_environment
from local_llm.locks import exclusive_lock
from local_llm.postgresql import StateUnavailableError
from local_llm.processes import end_leftovers, start_child, stop_child
from local_llm.settings import Settings
from local_llm.state import Job, State
from training import batches, checkpoints, launch, leases
from training.checkpoints import STEPS
from training.leases import LEASE_SECONDS, Lease, LeaseLostError
from training.publishing import withdraw_ended

# A child told to stop finishes its step and writes a checkpoint.
GRACE_SECONDS = 30.0
LOCK = "trainer.lock"
RECORDS = "trainer"
SECONDS_BETWEEN_CLEANINGS = 60.0
LOG_TAIL_BYTES = 1 << 16


class StoppedError(Exception):
    """The trainer was told to stop while its job waited for the device."""


@dataclass(frozen=True)
class Ending:
    returncode: int
    killed: bool  # by SIGKILL, it or one of its processes


class Trainer:
    def __init__(self, settings: Settings, state: State, *, options: Sequence[str] = ()):
        """`options` are passed on to the child: the --settings we were started with."""
        self._settings = settings
        self._state = state
        self._options = options
        self._stopping = False
        self._cleaned_at = 0.0

    def stop(self) -> None:
        """Makes serve() end its child, put the job back and return. May be called by a signal handler."""
        self._stopping = True

    def serve(self) -> None:
        """Takes jobs until stop() is called.

        Raises: LockedError if another trainer is at work, SettingsError if the device cannot be shared as asked.
        """
        require_sharing(self._settings)
        home = self._settings.place.ensure()
        with exclusive_lock(home.run / LOCK, "the trainer"):
            end_leftovers(home.run / RECORDS)
            leases.put_back_all(self._state, "trainer")
            AdapterRegistry(self._settings, self._state).remove_abandoned()
            self._clean()
            while not self._stopping:
                lease = self._claim()
                if lease is not None:
                    self._run(lease)
                    self._clean()
                else:
                    self._clean_now_and_then()
                    time.sleep(self._settings.training.poll_seconds)

    def _claim(self) -> Lease | None:
        try:
            return leases.claim_next(self._state)
        except StateUnavailableError:  # told in the log; it is asked again with the next look
            return None

    def _run(self, lease: Lease) -> None:
        ending = None
        with suppress(LeaseLostError):  # finished, failed, paused or cancelled: nothing to put back
            with suppress(StoppedError), self._device(lease) as descriptors:
                ending = self._train(lease, descriptors)
            self._settle(lease, ending)

    def _device(self, lease: Lease) -> AbstractContextManager[Sequence[int]]:
        """Waits for the device if need be. Raises: LeaseLostError, StoppedError."""
        return training_device(
            self._settings,
            lease.job_id,
            talk=partial(leases.report_event, self._state, lease),
            meanwhile=partial(self._stay, lease),
        )

    def _stay(self, lease: Lease) -> None:
        """Keeps the job while it waits. Raises: LeaseLostError, StoppedError."""
        if self._stopping:
            raise StoppedError
        leases.renew(self._state, lease)

    def _train(self, lease: Lease, descriptors: Sequence[int]) -> Ending:
        home = self._settings.place
        how = launch.Launch.of(self._settings.training)
        arguments = [*self._options, "run", lease.job_id, "--lease", lease.token]
        with (home.logs / f"{lease.job_id}.log").open("a+b") as log:
            begun = log.tell()
            child = start_child(
                lease.job_id,
                how.command(arguments),
                environment={
                    **offline.environment(),
                    **training_environment(self._settings),
                    **how.environment(),
                },
                log=log,
                records=home.run / RECORDS,
                pass_fds=descriptors,
            )
            grace_seconds = GRACE_SECONDS
            try:
                grace_seconds = self._watch(child, lease)
            finally:
                stop_child(child, grace_seconds=grace_seconds)
                (home.run / RECORDS / f"{lease.job_id}.process.json").unlink(missing_ok=True)
            log.seek(max(begun, log.seek(0, 2) - LOG_TAIL_BYTES))
            return Ending(child.returncode, launch.was_killed(child.returncode, log.read()))

    def _watch(self, child: subprocess.Popen[bytes], lease: Lease) -> float:
        """Renews the lease until the child is done, the job is no longer ours, or we are to stop.

        Returns the seconds that the child has, if it still runs, to write a checkpoint and go.
        """
        while child.poll() is None and not self._stopping:
            try:
                leases.renew(self._state, lease)
            except StateUnavailableError:  # the child goes on: a lease that ran out is good until somebody takes it
                pass
            except LeaseLostError:
                return self._grace_after(self._status(lease.job_id), child)
            time.sleep(min(self._settings.training.poll_seconds, LEASE_SECONDS / 4))
        return GRACE_SECONDS

    def _grace_after(self, status: str | None, child: subprocess.Popen[bytes]) -> float:
        if status in ("succeeded", "failed"):  # the child said so itself this moment, and is about to end
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_SECONDS)
            return GRACE_SECONDS
        return GRACE_SECONDS if status == "paused" else 0

    def _settle(self, lease: Lease, ending: Ending | None) -> None:
        """A job that the child did not finish goes back into the queue. Raises: LeaseLostError if it did."""
        if ending is None or self._stopping:
            leases.put_back(self._state, lease, "The trainer was stopped; the job waits", counts=False)
            return
        if ending.killed:
            self._ask_for_less_memory(lease)
        ended = f"The training process ended early (exit status {ending.returncode})"
        leases.put_back(self._state, lease, f"{ended}; the job goes on from its last checkpoint")

    def _ask_for_less_memory(self, lease: Lease) -> None:
        """Nobody here sent that SIGKILL: most likely the kernel did, for lack of memory."""
        tokens = leases.load(self._state, lease).micro_batch_tokens
        if tokens is None:
            tokens = self._settings.training.micro_batch_tokens
        fewer = batches.smaller(tokens)
        if fewer is not None:
            leases.set_micro_batch_tokens(self._state, lease, fewer)
            message = (
                "The training process was killed, most likely for lack of memory: "
                f"the next attempt passes {fewer} tokens through the model at once instead of {tokens}"
            )
            leases.report_event(self._state, lease, message, level="warn")

    def _clean_now_and_then(self) -> None:
        if time.monotonic() - self._cleaned_at >= SECONDS_BETWEEN_CLEANINGS:
            with suppress(StateUnavailableError):
                self._clean()

    def _clean(self) -> None:
        """Removes what jobs that have ended would have gone on from, and models that nobody is to see."""
        self._cleaned_at = time.monotonic()
        for steps in self._settings.place.jobs.glob(f"*/{STEPS}"):
            if self._status(steps.parent.name) in ("succeeded", "cancelled", "failed"):
                checkpoints.discard(steps.parent)
        withdraw_ended(self._settings, self._state)

    def _status(self, job_id: str) -> str | None:
        with self._state.reading() as session:
            job = session.get(Job, job_id)
            return None if job is None else job.status


def serve_until_signalled(settings: Settings, state: State, settings_file: Path | None) -> None:
    """Runs a trainer that stops on SIGTERM and SIGINT. Raises: LockedError, SettingsError."""
    options = ["--settings", str(settings_file)] if settings_file else []
    trainer = Trainer(settings, state, options=options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: trainer.stop())
    trainer.serve()
