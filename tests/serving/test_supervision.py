"""An engine that dies or hangs, seen from outside: real supervisor, real gateway, a small program for an engine."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llm.settings import Settings

from .conftest import BASE
from .running_server import Server, import_models, servers

CONTROL = ("/health", "/v1/models", "/v1/files", "/v1/fine_tuning/jobs", "/v1/profiles")
HANG = {"INTERVAL_SECONDS": "0.3", "TIMEOUT_SECONDS": "0.5", "FAILURES": "2"}


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[Server]:
    import_models(settings, tmp_path)
    variables = {f"LOCAL_LLM_ENGINE__HEALTH_{name}": value for name, value in HANG.items()}
    with servers(settings, **variables, LOCAL_LLM_LOGS__MAX_BYTES="65536") as start:
        yield start()


def test_an_engine_that_ends_or_hangs_comes_back_and_the_rest_stays(server: Server) -> None:
    """One story, because every start of a gateway takes seconds."""
    server.wait_for_engine("up")
    assert server.chat().status_code == 200
    assert len(server.engine_log().splitlines()) == 1

    # It crashes. Clients are told when to come back, and everything else works.
    os.kill(server.engine_pid(), signal.SIGKILL)
    server.wait_for_engine("starting")
    ready, chat = server.get("/ready"), server.chat()
    assert (ready.status_code, chat.status_code) == (503, 503)
    assert chat.json()["error"]["code"] == "unavailable"
    for answer in (ready, chat):
        assert 2 <= int(answer.headers["retry-after"]) <= 4, "its pause is two seconds, and it starts in less"
    for path in CONTROL:
        assert server.get(path).status_code == 200, path
    # The openai client does as it is told, and its user notices nothing.
    answer = server.client(max_retries=2).chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": "Hello"}]
    )
    assert answer.choices[0].message.content == "Aye."

    # It hangs: alive, and silent.
    hanging = server.engine_pid()
    os.kill(hanging, signal.SIGSTOP)
    for path in CONTROL:
        assert server.get(path).status_code == 200, path
    server.wait_until(lambda: server.engine_pid() != hanging)
    server.wait_for_engine("up")
    assert server.chat().status_code == 200
    assert len(server.engine_log().splitlines()) == 3, "the log is kept over starts"

    server.wait_until(lambda: server.said.read_text().splitlines().count("ready") == 3)
    said = server.said.read_text().splitlines()
    assert [line.partition(";")[0] for line in said if line.startswith(("engine", "ready"))] == [
        "ready",
        "engine ended with exit code -9: small engine: started",
        "ready",
        "engine: it is alive but did not answer 2 times in a row within 0.5 s",
        "engine ended with exit code -9: small engine: started",
        "ready",
    ]
