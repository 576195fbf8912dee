"""gpu.sharing = "stop" seen from outside: real supervisor, real gateway, and a small program for an engine.

tests/contract/test_sharing.py tells the same story with the real engine and a real job.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from local_llm.device import training_device
from local_llm.models import ModelStore
from local_llm.settings import Settings, load_settings

from .conftest import BASE

REPOSITORY = Path(__file__).parent.parent.parent
JOB = "ftjob-1"
STOPPED = f'the engine is stopped while job {JOB} trains (gpu.sharing = "stop")'


class Server:
    def __init__(self, home: Path, process: subprocess.Popen[bytes]):
        self.home = home
        self.process = process

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self._url() + path, timeout=5)

    def chat(self) -> httpx.Response:
        body = {"model": BASE, "messages": [{"role": "user", "content": "Hello"}]}
        return httpx.post(self._url() + "/v1/chat/completions", json=body, timeout=5)

    def engine(self) -> str | None:
        """What /ready says of it; None while the gateway itself is starting."""
        try:
            return str(self.get("/ready").json()["engine"])
        except (httpx.HTTPError, OSError, ValueError):
            return None

    def wait_for_engine(self, status: str) -> None:
        deadline = time.monotonic() + 60
        while (seen := self.engine()) != status:
            assert time.monotonic() < deadline, seen
            assert self.process.poll() is None
            time.sleep(0.1)

    def _url(self) -> str:
        return str(json.loads((self.home / "run" / "server.json").read_text())["url"])


@pytest.fixture
def stop(tmp_path: Path) -> Settings:
    settings = load_settings(
        environment={"LOCAL_LLM_HOME": str(tmp_path / "home")},
        overrides={"gpu.sharing": "stop", "training.poll_seconds": 0.05},
    )
    store = ModelStore(settings.place.ensure().models)
    for name, file, value in (
        (BASE, "config.json", {"architectures": ["LlamaForCausalLM"]}),
        ("all-MiniLM-L6-v2", "modules.json", []),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / file).write_text(json.dumps(value))
        store.import_folder(folder, name=name)
    return settings


@pytest.fixture
def start(stop: Settings) -> Iterator[Callable[[], Server]]:
    started: list[Server] = []
    environment = {
        **os.environ, "LOCAL_LLM_HOME": str(stop.home), "LOCAL_LLM_GPU__SHARING": "stop",
        "LOCAL_LLM_SERVER__PORT": "0", "LOCAL_LLM_ENGINE__KV_CACHE_GIB": "1",
    }  # fmt: skip

    def start_server() -> Server:
        line = [sys.executable, "-m", "tests.serving.small_server"]
        started.append(Server(stop.home, subprocess.Popen(line, cwd=REPOSITORY, env=environment)))
        return started[-1]

    yield start_server
    for server in started:
        server.process.terminate()
        server.process.wait(60)


def test_while_a_job_trains_there_is_no_engine_and_everything_else(
    stop: Settings, start: Callable[[], Server]
) -> None:
    """One story, because every start of a gateway takes seconds."""
    server = start()
    server.wait_for_engine("up")
    assert server.chat().json()["choices"][0]["message"]["content"] == "Aye."

    # A job takes the device: the engine is gone by then, and whoever asks is told why.
    heard: list[str] = []
    with training_device(stop, JOB, talk=heard.append):
        assert heard == ['Waiting for the engine to stop (gpu.sharing = "stop")']
        assert server.engine() == f"stopped while job {JOB} trains"
        ready = server.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "training")
        chat = server.chat()
        assert (chat.status_code, chat.json()["error"]["code"]) == (503, "unavailable")
        assert chat.json()["error"]["message"].startswith(STOPPED)
        assert int(chat.headers["retry-after"]) > 0
        for path in ("/health", "/v1/models", "/v1/files", "/v1/fine_tuning/jobs"):
            assert server.get(path).status_code == 200
    server.wait_for_engine("up")
    assert server.chat().status_code == 200

    # The supervisor is killed while a job trains: the next one waits for the job, too.
    with training_device(stop, JOB):
        server.process.kill()
        server.process.wait()
        server = start()
        server.wait_for_engine(f"stopped while job {JOB} trains")
        time.sleep(1)
        assert server.chat().json()["error"]["message"].startswith(STOPPED)
    server.wait_for_engine("up")
    assert server.chat().status_code == 200


def test_a_server_that_stops_frees_the_device(stop: Settings, start: Callable[[], Server]) -> None:
    server = start()
    server.wait_for_engine("up")
    server.process.terminate()
    assert server.process.wait(60) == 0
    heard: list[str] = []
    with training_device(stop, JOB, talk=heard.append):
        assert heard == []
