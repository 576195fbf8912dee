"""The real thing, once a session: the quickstart's results, and a server on them with the real engine."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

REPOSITORY = Path(__file__).parent.parent.parent
LOOPBACK_ONLY = [
    "unshare",
    "--net",
    "--map-root-user",
    sys.executable,
    str(Path(__file__).parent / "loopback_only.py"),
]
READY_TIMEOUT_SECONDS = 300


@dataclass
class QuickstartRun:
    home: Path
    result: dict[str, Any]
    stdout: str
    stderr: str
    isolated: bool  # whether it ran where there is no network at all
    left_running: list[str]


@dataclass
class RunningServer:
    url: str
    home: Path
    process: subprocess.Popen[bytes]

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", **options)


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "LOCAL_LLM_HOME": str(home)}


def can_isolate() -> bool:
    return subprocess.run([*LOOPBACK_ONLY, "true"], capture_output=True, check=False).returncode == 0


def run_quickstart(home: Path) -> QuickstartRun:
    isolated = can_isolate()
    line = [*(LOOPBACK_ONLY if isolated else []), str(REPOSITORY / "scripts" / "quickstart")]
    done = subprocess.run(line, env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    result = json.loads(done.stdout.splitlines()[-1])
    return QuickstartRun(home, result, done.stdout, done.stderr, isolated, processes_of(home))


def copy_home(home: Path, target: Path) -> Path:
    """A home of its own for a test; locks and sockets are not copied, they mean nothing elsewhere."""
    return shutil.copytree(home, target, symlinks=True, ignore=shutil.ignore_patterns("run"))


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> QuickstartRun:
    """A first run, on an empty home. QUICKSTART_HOME names one to work on instead, to save time by hand."""
    home = os.environ.get("QUICKSTART_HOME") or tmp_path_factory.mktemp("quickstart") / "home"
    return run_quickstart(Path(home))


def start_server(home: Path, log: Path, *options: str) -> RunningServer:
    """Starts `python -m serving` and waits until it is ready."""
    with log.open("ab") as handle:
        begins = handle.tell()  # before it stands what an earlier server of this home said
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", "--port", "0", *options],
            env=environment(home), cwd=REPOSITORY, stdout=handle, stderr=handle,
        )  # fmt: skip
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    record = home / "run" / "server.json"
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        if record.exists() and b"listening on" in log.read_bytes()[begins:]:
            url = json.loads(record.read_text())["url"]
            try:
                if httpx.get(f"{url}/ready", timeout=5).status_code == 200:
                    return RunningServer(url, home, process)
            except httpx.HTTPError:
                pass
        time.sleep(0.3)
    process.kill()
    raise AssertionError(log.read_text()[-4000:])


@pytest.fixture(scope="session")
def server(quickstart: QuickstartRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = start_server(quickstart.home, tmp_path_factory.mktemp("server") / "log")
    yield running
    running.process.terminate()
    assert running.process.wait(60) == 0
    assert processes_of(quickstart.home) == []


@pytest.fixture
def client(server: RunningServer) -> openai.OpenAI:
    return server.client()


def processes_of(home: Path) -> list[str]:
    """Command lines of the living processes that were started for this home."""
    mark = f"LOCAL_LLM_HOME={home}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found
