"""A home of its own: everything is done in it by the commands and the server that a user has."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from gateway_bench.world import clean_environment

from local_llm import processes
from local_llm.cli.output import talk
from local_llm.cli.serving import server_url
from local_llm.errors import LocalLLMError, UnavailableError
from local_llm.permissions import Caller, local_admin
from local_llm.settings import Settings, load_settings
from local_llm.state import State, open_state

# Source: the experiment that docs/benchmarks.md names trained SmolLM2-135M at this rate; "auto" takes less.
LEARNING_RATE = 5e-4
SETTINGS = f"[training]\nlearning_rate = {LEARNING_RATE}\n"
READY_SECONDS = 900
GRACE_SECONDS = 30


class Box:
    def __init__(self, work: Path, settings: str = SETTINGS):
        """`settings`: the text of settings.toml."""
        self.work = work.expanduser().resolve()
        self.home = self.work / "home"
        self._environment = clean_environment(LOCAL_LLM_HOME=str(self.home))
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "settings.toml").write_text(settings, encoding="utf-8")

    @cached_property
    def settings(self) -> Settings:
        return load_settings(environment={"LOCAL_LLM_HOME": str(self.home)})

    @cached_property
    def state(self) -> State:
        return open_state(self.settings.place)

    @property
    def caller(self) -> Caller:
        return local_admin(self.state.local_project_id())

    def command(self, *arguments: str) -> Any:
        """Runs `local-llm ARGUMENTS`, shown first; returns what it printed as JSON. Its talk goes to stderr.

        Raises: LocalLLMError.
        """
        return json.loads(self.printed("-m", "local_llm", *arguments, "--json"))

    def printed(self, *line: str) -> str:
        """Runs `python LINE` on this home, and returns what it printed. Raises: LocalLLMError."""
        told = " ".join(line).replace("-m local_llm", "local-llm")[:200]
        talk(f"$ {told}")
        done = subprocess.run(
            [sys.executable, *line], stdout=subprocess.PIPE, env=self._environment, text=True, check=False
        )
        if done.returncode != 0:
            raise LocalLLMError(f"this command failed: {told}")
        return done.stdout

    @contextmanager
    def server(self) -> Iterator[str]:
        """`python -m serving` on this home for the block; the base URL of its API.

        Raises: UnavailableError.
        """
        talk("$ python -m serving --port 0")
        records, log = self.work / "run", self.work / "server.log"
        processes.end_leftovers(records)
        with log.open("wb") as handle:
            line = [sys.executable, "-m", "serving", "--port", "0"]
            server = processes.start_child(
                "serving", line, environment=self._environment, log=handle, records=records
            )
        try:
            self._wait_until_ready(server, log)
            yield f"{server_url(self.settings)}/v1"
        finally:
            processes.stop_child(server, grace_seconds=GRACE_SECONDS)
            processes.end_leftovers(records)

    def _wait_until_ready(self, server: "subprocess.Popen[bytes]", log: Path) -> None:
        import httpx

        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and server.poll() is None:
            try:
                url = f"{server_url(self.settings)}/ready"
                if httpx.get(url, timeout=5, trust_env=False).status_code == 200:
                    return
            except (httpx.HTTPError, OSError):
                pass
            time.sleep(0.5)
        raise UnavailableError(
            f"the server did not come up: {log.read_text(errors='replace')[-600:]}", hint=str(log)
        )
