"""A job that the command line runs in several processes that train together, and looks on."""

import threading
import time

from local_llm import offline
from local_llm.device import training_environment
from local_llm.errors import LocalLLMError
from local_llm.permissions import Caller
from local_llm.processes import start_child, stop_child
from local_llm.settings import Settings
from local_llm.state import State
from training import jobs, launch
from training.failures import StoppedError
from training.leases import Lease
from training.reporting import Report

POLL_SECONDS = 0.5
RECORDS = "cli"


def run_together(
    settings: Settings,
    state: State,
    lease: Lease,
    caller: Caller,
    *,
    options: list[str],
    report: Report,
    stop: threading.Event,
) -> str:
    """Runs the job that `lease` holds in training.processes processes; returns the model's name.

    `options` are the --settings we were started with.

    Raises: StoppedError once `stop` is set and the processes have ended; LocalLLMError if the job failed.
    """
    how = launch.Launch.of(settings.training)
    arguments = [*options, "run", lease.job_id, "--lease", lease.token]
    with (settings.place.logs / f"{lease.job_id}.log").open("ab") as log:
        child = start_child(
            lease.job_id,
            how.command(arguments),
            environment={
                **offline.environment(),
                **training_environment(settings),
                **how.environment(),
            },
            log=log,
            records=settings.place.run / RECORDS,
        )
        try:
            while child.poll() is None and not stop.is_set():
                _look(state, lease, caller, report)
                time.sleep(POLL_SECONDS)
        finally:
            stop_child(child, grace_seconds=launch.SHUTDOWN_SECONDS + 5)
            (settings.place.run / RECORDS / f"{lease.job_id}.process.json").unlink(missing_ok=True)
    job = jobs.get_job(state, lease.job_id, caller)
    if job.fine_tuned_model is not None:
        return job.fine_tuned_model
    if stop.is_set():
        raise StoppedError("the run was told to stop")
    if job.error is not None:
        raise LocalLLMError(job.error["message"])
    raise LocalLLMError(
        f"the training processes ended with exit status {child.returncode}",
        hint=f"see {log.name}; go on with: local-llm train adapter --resume {lease.job_id}",
    )


def _look(state: State, lease: Lease, caller: Caller, report: Report) -> None:
    """Passes on the step that the processes reported last."""
    for event in jobs.list_events(state, lease.job_id, caller, limit=5)[0]:
        if "total_steps" in event.data:
            report(event.data["step"], event.data["total_steps"], f"loss {event.data['train_loss']:.3f}")
            return
