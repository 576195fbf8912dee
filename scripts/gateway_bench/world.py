"""The processes of a benchmark and the cores they are held to: the synthetic engine, and the gateways before it."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway_bench.engine import Behaviour, Counts
from gateway_bench.request import chat_request
from local_llm import offline, processes
from local_llm.descriptors import allow_descriptors

SCRIPTS = Path(__file__).parent.parent
MODEL = "SmolLM2-135M-Instruct"
BACKLOG = 4096
START_SECONDS = 120
GRACE_SECONDS = 10
DESCRIPTORS = 16384  # a thousand streams at both ends; children inherit it


class WayUnavailableError(Exception):
    """A way that cannot be compared here, with what would mend that."""


@dataclass(frozen=True)
class Cores:
    gateway: int
    rest: int  # engine and load generator

    def __str__(self) -> str:
        if self.gateway == self.rest:
            return f"everything on core {self.rest}"
        return f"gateway on core {self.gateway}, engine and load generator on core {self.rest}"


@dataclass(frozen=True)
class Way:
    """One way to the engine. leader: of the gateway's process group; the engine's own where there is no gateway."""

    name: str
    address: tuple[str, int]
    leader: int
    versions: Mapping[str, str]

    @property
    def port(self) -> int:
        return self.address[1]


class World:
    """Opened, it serves the synthetic engine at `socket` and on `port`. Everything started ends with it."""

    def __init__(self, work: Path, cores: Cores, key: str, engine_socket: Path, settings_file: Path | None = None):
        self.work, self.cores, self.key, self.socket = work, cores, key, engine_socket
        self.settings_file = settings_file
        self._records = work / "run"
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "World":
        self._cores_before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self.cores.rest})
        allow_descriptors(DESCRIPTORS)
        processes.end_leftovers(self._records)
        self.socket.unlink(missing_ok=True)
        listener = listening()
        self.port: int = listener.getsockname()[1]
        line = [
            sys.executable,
            "-m",
            "gateway_bench.engine",
            "--socket",
            self.socket,
            "--fd",
            listener.fileno(),
            "--model",
            MODEL,
        ]
        self.engine = self.start("engine", line, on=self.cores.rest, listener=listener)
        self._await("engine", self.engine, lambda: self.ask("GET", "/health") is not None)
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children):
            processes.stop_child(child, grace_seconds=GRACE_SECONDS)
        os.sched_setaffinity(0, self._cores_before)

    def start(
        self,
        name: str,
        line: Sequence[object],
        *,
        on: int | None = None,
        listener: socket.socket | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """A process held to a core, by default the gateways'. It gets `listener`, and we let go of it."""
        with self.log(name).open("wb") as log, held_to(self.cores.gateway if on is None else on):
            child = processes.start_child(
                name,
                [str(word) for word in line],
                environment=clean_environment() if environment is None else environment,
                log=log,
                records=self._records,
                pass_fds=(listener.fileno(),) if listener else (),
            )
        if listener:
            listener.close()
        self._children.append(child)
        return child

    def log(self, name: str) -> Path:
        return self.work / f"{name}.log"

    def ready(self, name: str, address: tuple[str, int], child: subprocess.Popen[bytes], **versions: str) -> Way:
        """The way, once a chat through it was answered.

        Raises: WayUnavailableError with the end of its log if that does not come to pass.
        """
        request = chat_request(MODEL, self.key, stream=False)
        self._await(name, child, lambda: _answers(address, request))
        return Way(name, address, child.pid, versions)

    def _await(self, name: str, child: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if child.poll() is not None:
                break
            with suppress(OSError, http.client.HTTPException):
                if ready():
                    return
            time.sleep(0.1)
        ended = self.log(name).read_text(errors="replace").strip()[-600:]
        raise WayUnavailableError(f"{name} did not come up within {START_SECONDS} s; its log ends: {ended}")

    # The engine, behind the gateways' back

    def behave(self, behaviour: Behaviour) -> None:
        self.ask("POST", "/bench/behaviour", asdict(behaviour))

    def counts(self) -> Counts:
        return Counts(**self.ask("GET", "/bench/counts"))

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            return json.loads(connection.getresponse().read() or b"{}")
        finally:
            connection.close()


def _answers(address: tuple[str, int], request: bytes) -> bool:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(64).startswith(b"HTTP/1.1 200")


def clean_environment(**more: str) -> dict[str, str]:
    """Without settings of whoever runs this; modules of the product and of the scripts are found."""
    kept = {name: value for name, value in offline.environment().items() if not name.startswith("LOCAL_LLM_")}
    path = os.pathsep.join([str(SCRIPTS.parent), str(SCRIPTS), os.environ.get("PYTHONPATH", "")])
    return {**kept, "PYTHONPATH": path, **more}


def listening() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    listener.set_inheritable(True)
    return listener


def free_port() -> int:
    """For those that cannot be handed a socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def held_to(core: int) -> Iterator[None]:
    """What is started in the block runs on this core, and so do its threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
