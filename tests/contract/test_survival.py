"""What was started keeps running, and what was killed is healed."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from .conftest import QuickstartRun, RunningServer, copy_home, processes_of, start_server

pytestmark = pytest.mark.engine


def pid_of(home: Path, name: str) -> int:
    return int(json.loads((home / "run" / "serving" / f"{name}.process.json").read_text())["pid"])


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answers(url: str, path: str) -> bool:
    try:
        return httpx.get(f"{url}{path}", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_killed_gateway_comes_back_on_the_same_socket(server: RunningServer) -> None:
    before = pid_of(server.home, "gateway")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: pid_of(server.home, "gateway") != before)
    wait_for(lambda: answers(server.url, "/ready"))


def test_a_killed_index_server_comes_back_and_meanwhile_plain_chats_go_on(server: RunningServer) -> None:
    before = pid_of(server.home, "index")
    os.kill(before, signal.SIGKILL)
    chat = server.client(max_retries=0).chat.completions.create(
        model="base", messages=[{"role": "user", "content": "Hi"}], max_tokens=2
    )
    assert chat.usage is not None
    wait_for(lambda: pid_of(server.home, "index") != before)
    wait_for(lambda: answers(server.url, "/ready"))


def test_after_a_kill_of_everything_that_matters_the_next_start_heals_and_serves(
    quickstart: QuickstartRun, tmp_path: Path
) -> None:
    home = copy_home(quickstart.home, tmp_path / "home")
    first = start_server(home, tmp_path / "log")
    engine = pid_of(home, "engine")
    for pid in (first.process.pid, engine):  # the parent, and the API server whose inner process may outlive it
        os.kill(pid, signal.SIGKILL)
    first.process.wait()

    second = start_server(home, tmp_path / "log")
    try:
        chat = second.client().chat.completions.create(
            model="quillon-hybrid", messages=[{"role": "user", "content": "What is E31?"}], max_tokens=5
        )
        assert chat.usage is not None
        assert pid_of(home, "engine") != engine
    finally:
        second.process.terminate()
        assert second.process.wait(60) == 0
    assert processes_of(home) == []
