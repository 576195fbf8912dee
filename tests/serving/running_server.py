"""A server as its clients see it: real supervisor, real gateway, and a small program for an engine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai

from local_llm.models import ModelStore
from local_llm.settings import Settings

from .conftest import BASE

REPOSITORY = Path(__file__).parent.parent.parent


class Server:
    def __init__(self, home: Path, process: subprocess.Popen[bytes], said: Path):
        self.home = home
        self.process = process
        self.said = said

    def engine_pid(self) -> int:
        record = self.home / "run" / "serving" / "engine.process.json"
        return int(json.loads(record.read_text())["pid"])

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
        self.wait_until(lambda: self.engine() == status)

    def wait_until(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not what():
            assert time.monotonic() < deadline, self.engine()
            assert self.process.poll() is None
            time.sleep(0.1)

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self._url() + "/v1", api_key="none", **options)

    def engine_log(self) -> str:
        return (self.home / "logs" / "engine.log").read_text()

    def _url(self) -> str:
        return str(json.loads((self.home / "run" / "server.json").read_text())["url"])


def import_models(settings: Settings, scratch: Path) -> None:
    """Two models that nobody loads."""
    store = ModelStore(settings.place.ensure().models)
    for name, file, value in (
        (BASE, "config.json", {"architectures": ["LlamaForCausalLM"]}),
        ("all-MiniLM-L6-v2", "modules.json", []),
    ):
        folder = scratch / name
        folder.mkdir()
        (folder / file).write_text(json.dumps(value))
        store.import_folder(folder, name=name)


@contextmanager
def servers(settings: Settings, **variables: str) -> Iterator[Callable[[], Server]]:
    """A function that starts one; all are stopped at the end. What they say is in their `said`."""
    started: list[Server] = []
    environment = {
        **os.environ, "LOCAL_LLM_HOME": str(settings.home), "LOCAL_LLM_SERVER__PORT": "0",
        "LOCAL_LLM_ENGINE__KV_CACHE_GIB": "1", "PYTHONUNBUFFERED": "1", **variables,
    }  # fmt: skip

    def start() -> Server:
        line = [sys.executable, "-m", "tests.serving.small_server"]
        said = settings.home / f"said-{len(started)}"
        with said.open("wb") as out:
            process = subprocess.Popen(line, cwd=REPOSITORY, env=environment, stdout=out)
        started.append(Server(settings.home, process, said))
        return started[-1]

    yield start
    for server in started:
        server.process.terminate()
        server.process.wait(60)
