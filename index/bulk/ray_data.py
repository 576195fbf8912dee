"""The home of Ray: parts of a corpus spread by Ray Data over the hosts of a cluster.

A worker that dies takes no part with it: Ray starts another and gives it the part again.
"""

import json
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from index import wire
from index.bulk.plan import Part, PartReport, Plan, part_from_json, part_to_json, report_from_json, report_to_json
from index.bulk.worker import Worker
from local_llm import offline
from local_llm.errors import LocalLLMError, SettingsError, UnavailableError

# Ray itself would try for minutes to reach a head that is not there.
CONNECT_SECONDS = 10


class OnRay:
    """`address`: HOST:PORT of the head, "auto" on a host of the cluster, or "local" for one of this process alone.

    `workers`: None for one a GPU, or one a host where there are none, with all of its cores.
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
            import ray.data

            count, cpus, gpus = self._shares()
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

    def _shares(self) -> tuple[int, float, float]:
        """How many workers, and the cores and the GPUs that each of them takes of its host."""
        import ray

        hosts = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = int(sum(host.get("GPU", 0) for host in hosts))
        if gpus:
            count = self._workers or gpus
            return count, 1, gpus / max(count, gpus)
        cores = [int(host.get("CPU", 0)) for host in hosts if host.get("CPU", 0) >= 1]
        if not cores:
            raise UnavailableError("no host of the Ray cluster has a core to give", hint="ray status")
        count = self._workers or len(cores)
        return count, max(1, min(*cores, sum(cores) // count)), 0


class _Encode:
    """One process of Ray's. Errors of ours go back as values: Ray would wrap them, and try again."""

    def __init__(self, plan: Plan, into: str):
        offline.apply()
        self._worker: Worker | None = None
        self._plan, self._into = plan, Path(into)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            self._worker = self._worker or Worker(self._plan, self._into)
            return {"report": report_to_json(self._worker.encode(part_from_json(row["part"]))), "error": ""}
        except LocalLLMError as error:
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
            f"the Ray cluster at {address!r} failed: {str(error).splitlines()[0]}",
            hint="what is encoded stays: run it again; ray status tells of the hosts",
        ) from error
    finally:
        ray.shutdown()
