"""Supervised processes: an engine that is stopped for a job did not crash, and nothing waits for it meanwhile."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from local_llm.device import EngineTurn, training_device
from local_llm.errors import OutOfSpaceError
from local_llm.processes import start_time
from local_llm.settings import Settings, load_settings
from serving.children import FIRST_PAUSE_SECONDS, Child, Children
from serving.health_watch import HealthWatch, Patience
from serving.log_rotation import LogRotation

# Answers /health once, and hangs from then on; what it starts would outlive it.
HANGING = """
import socket, subprocess, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
first, _ = listener.accept()
first.sendall(b"HTTP/1.1 200 OK" + bytes([13, 10]) * 2)
print("hangs from here on", flush=True)
time.sleep(600)
"""
OBEDIENT = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)
# Leaves a process behind that ignores SIGTERM, as a killed API server leaves its engine.
PARENT = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {STUBBORN!r}])
time.sleep(600)
"""


@pytest.fixture
def stop(tmp_path: Path) -> Settings:
    settings = load_settings(
        environment={"LOCAL_LLM_HOME": str(tmp_path / "home")},
        overrides={"gpu.sharing": "stop", "training.poll_seconds": 0.02},
    )
    settings.place.ensure()
    return settings


class Box:
    """A server's children: only an engine, which is a small program."""

    def __init__(self, settings: Settings, program: str, grace_seconds: float, patience: Patience | None):
        self.told: list[str] = []
        place = settings.place
        self.engine = Child(
            "engine",
            lambda: [sys.executable, "-c", program, str(place.socket("engine"))],
            os.environ,
            place.logs / "engine.log",
            socket=place.socket("engine"),
            health=HealthWatch(place.socket("engine"), patience, "m") if patience else None,
            turn=EngineTurn(place),
            grace_seconds=grace_seconds,
        )
        rotation = LogRotation(settings.logs, self.told.append)
        self.children = Children([self.engine], place.run / "serving", self.told.append, rotation)

    def look_until(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not what():
            began = time.monotonic()
            self.children.look()
            assert time.monotonic() - began < 1, "it waited"
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @property
    def runs(self) -> bool:
        return self.engine.process is not None and not self.engine.held_off


@pytest.fixture
def box(stop: Settings) -> Iterator[Callable[..., Box]]:
    made: list[Box] = []

    def make(program: str = OBEDIENT, grace_seconds: float = 5, patience: Patience | None = None) -> Box:
        made.append(Box(stop, program, grace_seconds, patience))
        return made[-1]

    yield make
    for one in made:
        one.children.end()


def test_an_engine_stops_for_a_job_and_starts_after_it_without_a_pause(
    stop: Settings, box: Callable[..., Box]
) -> None:
    server = box()
    for _ in range(2):  # as often as one likes: it is no crash
        server.look_until(lambda: server.runs)
        with training_device(stop, "ftjob-1", meanwhile=server.children.look):
            assert server.engine.process is None
            server.children.look()
            assert server.engine.process is None
    server.look_until(lambda: server.runs)
    assert server.engine.endings == []
    assert server.engine.pause_seconds == FIRST_PAUSE_SECONDS
    assert (
        server.told
        == [
            'engine: stopped while job ftjob-1 trains (gpu.sharing = "stop")',
            "engine: starting it again",
        ]
        * 2
    )


@pytest.mark.parametrize("program", [STUBBORN, PARENT])
def test_an_engine_that_does_not_obey_is_killed_with_all_it_started(
    stop: Settings, box: Callable[..., Box], program: str
) -> None:
    server = box(program, grace_seconds=0.2)
    server.look_until(lambda: server.runs and "deaf" in server.engine.log.read_text())
    with training_device(stop, "ftjob-1", meanwhile=server.children.look):
        assert server.engine.process is None
    assert server.engine.endings == []


def test_a_job_that_is_there_first_is_not_disturbed(stop: Settings, box: Callable[..., Box]) -> None:
    server = box()
    with training_device(stop, "ftjob-1"):
        for _ in range(5):
            server.children.look()
            assert server.engine.process is None
    server.look_until(lambda: server.runs)


def test_a_wish_withdrawn_while_the_engine_stops_brings_it_back(stop: Settings, box: Callable[..., Box]) -> None:
    server = box(STUBBORN, grace_seconds=0.5)
    server.look_until(lambda: server.runs and "deaf" in server.engine.log.read_text())

    def cancelled() -> None:
        server.children.look()
        raise KeyError

    with pytest.raises(KeyError), training_device(stop, "ftjob-1", meanwhile=cancelled):
        pass
    assert server.engine.process is not None
    first = server.engine.process.pid
    server.look_until(lambda: server.runs)
    assert server.engine.process is not None
    assert server.engine.process.pid != first


def test_an_engine_that_crashes_is_started_again_after_a_pause(stop: Settings, box: Callable[..., Box]) -> None:
    server = box()
    server.look_until(lambda: server.runs)
    assert server.engine.process is not None
    server.engine.process.kill()
    server.engine.process.wait()
    assert server.children.look() == [server.engine]
    assert server.engine.endings == [-9]
    assert server.engine.pause_seconds > FIRST_PAUSE_SECONDS
    assert "ended with exit code -9" in server.told[-1]
    server.look_until(lambda: server.runs)


IMPATIENT = Patience(interval_seconds=0.1, timeout_seconds=0.2, failures=2, start_seconds=60)


def test_an_engine_that_hangs_is_ended_with_all_it_started_and_started_again(
    stop: Settings, box: Callable[..., Box]
) -> None:
    server = box(HANGING, patience=IMPATIENT)
    server.look_until(lambda: server.engine.ready)
    assert server.engine.process is not None
    first = server.engine.process.pid
    server.look_until(lambda: server.engine.endings == [-9])
    assert processes_of(first) == []
    assert server.told == [
        "engine: it is alive but did not answer 2 times in a row within 0.2 s; ending it",
        "engine ended with exit code -9: hangs from here on; starting it again in 2 s",
    ]
    assert not server.engine.ready
    server.look_until(lambda: server.engine.ready)
    assert server.engine.process is not None
    assert server.engine.process.pid != first


def test_an_engine_that_stops_for_a_job_does_not_hang(stop: Settings, box: Callable[..., Box]) -> None:
    """It answers nothing while it ends, which may take longer than a running one may be silent."""
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    server = box(ignore + HANGING, grace_seconds=2, patience=IMPATIENT)
    server.look_until(lambda: server.engine.ready)
    with training_device(stop, "ftjob-1", meanwhile=server.children.look):
        for _ in range(50):
            server.children.look()
            time.sleep(0.02)
    assert server.engine.endings == []
    assert server.told == ['engine: stopped while job ftjob-1 trains (gpu.sharing = "stop")']


def test_a_command_that_cannot_be_made_now_is_tried_again(stop: Settings, box: Callable[..., Box]) -> None:
    server = box()
    engine, failures = server.engine, iter([OutOfSpaceError("the disk is full")])
    command = engine.command

    def make() -> list[str]:
        for failure in failures:
            raise failure
        return list(command() if callable(command) else command)

    engine.command = make
    server.look_until(lambda: server.runs)
    assert server.told == ["engine cannot be started: the disk is full; trying again in 2 s"]


def test_whatever_keeps_one_from_starting_ends_no_other(stop: Settings, box: Callable[..., Box]) -> None:
    server = box()
    engine, failures = server.engine, iter([KeyError("r")])
    command = engine.command

    def make() -> list[str]:
        for failure in failures:
            raise failure
        return list(command() if callable(command) else command)

    engine.command = make
    server.look_until(lambda: server.runs)
    assert server.told == ["engine cannot be started: KeyError: 'r'; trying again in 2 s"]


def processes_of(group: int) -> list[int]:
    """Those that live, zombies left out."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and start_time(int(entry.name)) is not None:
            with suppress(ProcessLookupError):
                members += [int(entry.name)] if os.getpgid(int(entry.name)) == group else []
    return members
