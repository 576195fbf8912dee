"""gpu.sharing = "stop" seen from outside: real supervisor, real gateway, and a small program for an engine.

tests/contract/test_sharing.py tells the same story with the real engine and a real job.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_llm.device import training_device
from local_llm.settings import Settings, load_settings

from .running_server import Server, import_models, servers

JOB = "ftjob-1"
STOPPED = f'the engine is stopped while job {JOB} trains (gpu.sharing = "stop")'


@pytest.fixture
def stop(tmp_path: Path) -> Settings:
    settings = load_settings(
        environment={"LOCAL_LLM_HOME": str(tmp_path / "home")},
        overrides={"gpu.sharing": "stop", "training.poll_seconds": 0.05},
    )
    import_models(settings, tmp_path)
    return settings


@pytest.fixture
def start(stop: Settings) -> Iterator[Callable[[], Server]]:
    with servers(stop, LOCAL_LLM_GPU__SHARING="stop") as start_server:
        yield start_server


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
        server.wait_for_engine(f"stopped while job {JOB} trains")  # looked at once a second
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
