"""The trainer: takes queued jobs one at a time and runs each in a child process of its own.

A child that dies takes nothing with it: its job goes back into the queue, up to three times. When the trainer
itself was killed, the next one ends what it left running before it takes anything.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from local_llm import offline
from local_llm.locks import exclusive_lock
from local_llm.processes import end_leftovers, start_child, stop_child
from local_llm.settings import Settings
from local_llm.state import State
from training import jobs
from training.jobs import LEASE_SECONDS, Lease, LeaseLostError

GRACE_SECONDS = 10.0
LOCK = "trainer.lock"
RECORDS = "trainer"


class Trainer:
    def __init__(self, settings: Settings, state: State, *, options: Sequence[str] = ()):
        """`options` are passed on to the child: the --settings we were started with."""
        self._settings = settings
        self._state = state
        self._options = options
        self._stopping = False

    def stop(self) -> None:
        """Makes serve() end its child, put the job back and return. May be called by a signal handler."""
        self._stopping = True

    def serve(self) -> None:
        """Takes jobs until stop() is called. Raises: LockedError if another trainer is at work."""
        home = self._settings.place.ensure()
        with exclusive_lock(home.run / LOCK, "the trainer"):
            end_leftovers(home.run / RECORDS)
            jobs.put_back_all(self._state, "trainer")
            while not self._stopping:
                lease = jobs.claim_next(self._state)
                if lease is None:
                    time.sleep(self._settings.training.poll_seconds)
                else:
                    self._run(lease)

    def _run(self, lease: Lease) -> None:
        home = self._settings.place
        with (home.logs / f"{lease.job_id}.log").open("ab") as log:
            child = start_child(
                lease.job_id,
                self._command(lease),
                environment=offline.environment(),
                log=log,
                records=home.run / RECORDS,
            )
            try:
                self._watch(child, lease)
            finally:
                stop_child(child, grace_seconds=GRACE_SECONDS)
                (home.run / RECORDS / f"{lease.job_id}.process.json").unlink(missing_ok=True)
        self._settle(lease, child.returncode)

    def _watch(self, child: subprocess.Popen[bytes], lease: Lease) -> None:
        """Renews the lease until the child is done, the job is no longer ours, or we are to stop."""
        while child.poll() is None and not self._stopping:
            try:
                jobs.renew(self._state, lease)
            except LeaseLostError:  # cancelled, or the child has finished this moment
                return
            time.sleep(min(self._settings.training.poll_seconds, LEASE_SECONDS / 4))

    def _settle(self, lease: Lease, returncode: int) -> None:
        """A job that the child did not finish goes back into the queue."""
        try:
            if self._stopping:
                jobs.put_back(self._state, lease, "The trainer was stopped; the job waits", counts=False)
            else:
                reason = f"The training process ended early (exit status {returncode}); the job starts again"
                jobs.put_back(self._state, lease, reason)
        except LeaseLostError:
            return  # finished, failed or cancelled: nothing to put back

    def _command(self, lease: Lease) -> list[str]:
        return [sys.executable, "-m", "training", *self._options, "run", lease.job_id, "--lease", lease.token]


def serve_until_signalled(settings: Settings, state: State, settings_file: Path | None) -> None:
    """Runs a trainer that stops on SIGTERM and SIGINT. Raises: LockedError."""
    options = ["--settings", str(settings_file)] if settings_file else []
    trainer = Trainer(settings, state, options=options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: trainer.stop())
    trainer.serve()
