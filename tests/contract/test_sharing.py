"""gpu.sharing = "stop" with the real engine and real jobs: it goes, the job trains, it comes back."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import httpx
import openai
import pytest

from .conftest import QuickstartRun, RunningServer, copy_home, processes_of, start_server
from .test_survival import pid_of, wait_for

pytestmark = pytest.mark.engine

REPOSITORY = Path(__file__).parent.parent.parent
EXAMPLES = REPOSITORY / "examples" / "quillon" / "training.jsonl"
BASE = "SmolLM2-135M-Instruct"
PATIENCE_SECONDS = 300


def ask(server: RunningServer, model: str) -> openai.types.chat.ChatCompletion:
    return server.client(max_retries=0).chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=2
    )


def create_job(server: RunningServer, examples: int, epochs: int) -> str:
    client = server.client()
    with EXAMPLES.open("rb") as lines:
        data = b"".join(islice(lines, examples))
    file = client.files.create(file=("few.jsonl", data), purpose="fine-tune")
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": 4}}}
    return client.fine_tuning.jobs.create(model=BASE, training_file=file.id, method=method).id  # type: ignore[arg-type]


def ready(server: RunningServer) -> httpx.Response:
    return httpx.get(f"{server.url}/ready", timeout=10)


def is_stopped_for(server: RunningServer, job: str) -> bool:
    return ready(server).json()["engine"] == f"stopped while job {job} trains"


def child_of(home: Path, job: str) -> int | None:
    """The process that trains it, and has the device then; None if none does."""
    record = home / "run" / "trainer" / f"{job}.process.json"
    return int(json.loads(record.read_text())["pid"]) if record.exists() else None


def status_at_the_end(server: RunningServer, job: str) -> str:
    jobs = server.client().fine_tuning.jobs
    wait_for(lambda: jobs.retrieve(job).status not in ("queued", "running"), PATIENCE_SECONDS)
    return jobs.retrieve(job).status


@pytest.fixture
def start(quickstart: QuickstartRun, tmp_path: Path) -> Iterator[Callable[[], RunningServer]]:
    """Starts a server, always on the same home."""
    started: list[RunningServer] = []
    home = copy_home(quickstart.home, tmp_path / "home")
    (home / "settings.toml").write_text('[gpu]\nsharing = "stop"\n')

    def start_here() -> RunningServer:
        started.append(start_server(home, tmp_path / "log"))
        return started[-1]

    yield start_here
    for server in started:
        server.process.terminate()
        server.process.wait(90)


def test_the_engine_stops_for_a_job_and_comes_back_whoever_is_killed(
    start: Callable[[], RunningServer], tmp_path: Path
) -> None:
    """One story, because every start of the engine takes half a minute."""
    server = start()
    home, jobs = server.home, server.client().fine_tuning.jobs
    assert ask(server, BASE).usage is not None
    engine = pid_of(home, "engine")

    # While a job trains there is no engine, and whoever asks is told why; everything else is served.
    first = create_job(server, examples=12, epochs=1)
    wait_for(lambda: is_stopped_for(server, first))
    wait_for(lambda: child_of(home, first) is not None)
    assert ready(server).status_code == 503
    with pytest.raises(openai.APIStatusError, match=f"stopped while job {first} trains") as refused:
        ask(server, BASE)
    assert refused.value.status_code == 503
    assert refused.value.response.headers["retry-after"]
    assert jobs.retrieve(first).status == "running"
    told = [event.message for event in jobs.list_events(first, limit=100).data]
    assert 'Waiting for the engine to stop (gpu.sharing = "stop")' in told

    # After it the engine is back, and serves what was trained.
    assert status_at_the_end(server, first) == "succeeded"
    wait_for(lambda: ready(server).status_code == 200, PATIENCE_SECONDS)
    trained = jobs.retrieve(first).fine_tuned_model
    assert trained is not None
    assert ask(server, trained).model == trained
    assert pid_of(home, "engine") != engine

    # The trainer is killed while its job trains: the next one takes the job up again.
    second = create_job(server, examples=16, epochs=2)
    wait_for(lambda: child_of(home, second) is not None)
    child, trainer = child_of(home, second), pid_of(home, "trainer")
    os.kill(trainer, signal.SIGKILL)
    wait_for(lambda: pid_of(home, "trainer") != trainer)
    wait_for(lambda: child_of(home, second) not in (None, child))

    # Then the supervisor: its successor waits for the job, and serves in the end.
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    server = start()
    assert status_at_the_end(server, second) == "succeeded"
    trained = server.client().fine_tuning.jobs.retrieve(second).fine_tuned_model
    assert trained is not None
    assert ask(server, trained).model == trained

    server.process.terminate()
    assert server.process.wait(60) == 0
    assert processes_of(home) == []
    # No stop for a job was taken for a crash.
    assert "engine ended" not in (tmp_path / "log").read_text()
