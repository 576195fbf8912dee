"""Milvus Lite as a server on loopback, from the environment that scripts/install_milvus --lite makes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
ENVIRONMENT = REPOSITORY / ".venv-milvus"
START_SECONDS = 300


class MilvusLite:
    """Keeps its data and its port when it is started again."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = int(listener.getsockname()[1])

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        # Its own packages only, and no sitecustomize of these tests.
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [ENVIRONMENT / "bin" / "python", "-m", "milvus_lite", "server", "--data-dir", self._folder / "data",
                 "--host", "127.0.0.1", "--port", str(self._port)],
                env=variables, stdout=log, stderr=log,
            )  # fmt: skip
        given_up = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < given_up, (self._folder / "log").read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections and questions, and answers none."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self._port)) == 0


def make_pymilvus_importable() -> None:
    """Behind everything that is here already, of which it takes the rest."""
    if not (ENVIRONMENT / "bin" / "python").exists():
        pytest.skip("no Milvus Lite here: scripts/install_milvus --lite")
    for packages in (ENVIRONMENT / "lib").glob("python3*/site-packages"):
        if str(packages) not in sys.path:
            sys.path.append(str(packages))
