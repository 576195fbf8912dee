"""The home of Ray: parts of a corpus spread by Ray Data over the hosts of a cluster.

A worker that dies takes no part with it: Ray starts another and gives it the part again, as often as we let it.
"""

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from index import wire
from index.bulk.encoded import begin_part
from index.bulk.plan import Part, PartReport, Plan, part_from_json, part_to_json, report_from_json, report_to_json
from index.bulk.worker import Worker, needs_no_gpu
from local_llm import offline
from local_llm.errors import LocalLLMError, SettingsError, UnavailableError

# Ray itself would try for minutes to reach a head that is not there.
CONNECT_SECONDS = 10


class OnRay:
    """`address`: HOST:PORT of the head, "auto" on a host of the cluster, or "local" for one of this process alone.

    `workers`: None for one a GPU, or one a host where there are none, with as many cores as the smallest host has.
    """

    def __init__(self, address: str, workers: int | None = None):
        """Raises: SettingsError without Ray."""
        if find_spec("ray") is None:
            raise SettingsError("there is no Ray here to spread work with", hint="scripts/install_ray")
        self._address = address
        self._workers = workers

    def run(self, plan: Plan, into: Path, parts: Sequence[Part]) -> Iterator[PartReport]:
        """Raises: UnavailableError if there is no cluster; what a worker raises."""
        if not parts:
            return
        with _connected(self._address):
            import ray
            import ray.data

            hosts = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            on_gpus = any(host.get("GPU", 0) for host in hosts) and not needs_no_gpu(plan)
            count, cpus, gpus = shares(hosts, self._workers, on_gpus=on_gpus)
            ray.data.DataContext.get_current().enable_progress_bars = False
            for name in ("ray.data", "ray.data._internal"):  # what befalls it is raised
                logging.getLogger(name).setLevel(logging.CRITICAL)
            stateful: Any = _Encode  # made once a worker; Ray's annotation knows functions only
            corpus = ray.data.from_items(
                [{"part": part_to_json(part)} for part in parts], override_num_blocks=len(parts)
            )
            encoded = corpus.map(
                stateful,
                fn_constructor_args=(plan, str(into)),
                compute=ray.data.ActorPoolStrategy(size=min(count, len(parts))),
                num_cpus=cpus,
                num_gpus=gpus,
            )
            for row in encoded.iter_rows():
                yield _report_of(row)


def shares(hosts: Sequence[Mapping[str, float]], workers: int | None, *, on_gpus: bool) -> tuple[int, float, float]:
    """How many workers, and the cores and the GPUs that each of them takes of its host. `hosts`: what each has.

    Raises: UnavailableError if none has a core.
    """
    if on_gpus:
        gpus = int(sum(host.get("GPU", 0) for host in hosts))
        count = workers or gpus
        return count, 1, gpus / max(count, gpus)
    cores = [int(host.get("CPU", 0)) for host in hosts if host.get("CPU", 0) >= 1]
    if not cores:
        raise UnavailableError("no host of the Ray cluster has a core to give", hint="ray status")
    count = workers or len(cores)
    return count, max(1, min(*cores, sum(cores) // count)), 0


class _Encode:
    """One process of Ray's. Errors go back as values: Ray would wrap them until nobody finds the cause."""

    def __init__(self, plan: Plan, into: str):
        offline.apply()
        self._worker: Worker | None = None
        self._plan, self._into = plan, Path(into)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            part = part_from_json(row["part"])
            begin_part(self._into, part)  # before all that may end this process
            self._worker = self._worker or Worker(self._plan, self._into)
            return {"report": report_to_json(self._worker.encode(part)), "error": ""}
        except LocalLLMError as error:
            return _as_row(error)
        except Exception as error:
            told = f"a worker on {socket.gethostname()} failed: {type(error).__name__}: {error}"
            logging.getLogger(__name__).exception(told)
            return _as_row(
                LocalLLMError(told, hint="where it came from is in Ray's log of the worker on that host")
            )


def _as_row(error: LocalLLMError) -> dict[str, Any]:
    return {"report": "", "error": json.dumps(wire.error_to_json(error))}


def _reach(address: str) -> None:
    """Raises: OSError, ValueError."""
    if address not in ("local", "auto"):
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _report_of(row: dict[str, Any]) -> PartReport:
    if row["error"]:
        raise wire.error_from_json(json.loads(row["error"]))
    return report_from_json(row["report"])


def cause_of(error: Exception) -> str:
    """A line. What befell a worker as it started comes with its traceback, and the cause is at the end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if any(line.startswith('File "') for line in lines) else lines[0]


@contextmanager
def _connected(address: str) -> Iterator[None]:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # read once, when it is imported
    import ray
    from ray.exceptions import RayError

    try:
        _reach(address)
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.WARNING,
            runtime_env={"env_vars": dict(offline.SWITCHES)},
        )
    except (OSError, RayError, RuntimeError, ValueError) as error:
        raise UnavailableError(
            f"no Ray cluster answers at {address!r}: {str(error).splitlines()[0]}",
            hint="on its first host: ray start --head --port 6379; on each other: ray start --address HOST:6379",
        ) from None
    try:
        yield
    except RayError as error:
        raise UnavailableError(
            f"the Ray cluster at {address!r} failed: {cause_of(error)}",
            hint="what is encoded stays: run it again; ray status tells of the hosts",
        ) from error
    finally:
        ray.shutdown()
