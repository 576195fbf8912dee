"""gpu.sharing: what is refused, what each side gets, and with `stop` one on the device at a time, whoever dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_llm import device
from local_llm.device import EngineTurn, training_device, training_job
from local_llm.errors import SettingsError
from local_llm.settings import Settings, load_settings

JOB = "ftjob-1"

# Trains until it is killed, in a child that outlives it for a while: as one that writes its last checkpoint.
TRAINER = """
import subprocess, sys, time
from local_llm.device import training_device
from local_llm.settings import load_settings
with training_device(load_settings(), "ftjob-1") as descriptors:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=descriptors)
    print(child.pid, flush=True)
    time.sleep(600)
"""


def sharing(home: Path, **gpu: Any) -> Settings:
    chosen = {f"gpu.{name}": value for name, value in gpu.items()}
    return load_settings(
        environment={"LOCAL_LLM_HOME": str(home)}, overrides={**chosen, "training.poll_seconds": 0.02}
    )


@pytest.fixture
def stop(tmp_path: Path) -> Settings:
    settings = sharing(tmp_path, sharing="stop")
    settings.place.ensure()
    return settings


@pytest.fixture
def turn(stop: Settings) -> Iterator[EngineTurn]:
    made = EngineTurn(stop.place)
    yield made
    made.end()


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_with_no_engine_a_job_has_the_device_at_once(stop: Settings, turn: EngineTurn) -> None:
    heard: list[str] = []
    assert training_job(stop) is None
    with training_device(stop, JOB, talk=heard.append) as descriptors:
        assert len(descriptors) == 2
        assert training_job(stop) == f"job {JOB}"
    assert heard == []
    assert training_job(stop) is None


def test_a_job_waits_until_the_engine_has_gone_and_says_so_once(stop: Settings, turn: EngineTurn) -> None:
    assert turn.begin()
    heard: list[str] = []
    looks: list[str | None] = []

    def meanwhile() -> None:
        looks.append(turn.wanted_by())
        if len(looks) == 3:
            turn.end()

    with training_device(stop, JOB, talk=heard.append, meanwhile=meanwhile):
        assert not turn.begin()
    assert looks == [f"job {JOB}"] * 3
    assert heard == ['Waiting for the engine to stop (gpu.sharing = "stop")']


def test_a_wait_that_is_broken_off_leaves_the_device_to_the_engine(stop: Settings, turn: EngineTurn) -> None:
    assert turn.begin()

    def cancelled() -> None:
        raise KeyError

    with pytest.raises(KeyError), training_device(stop, JOB, meanwhile=cancelled):
        pass
    assert training_job(stop) is None
    assert turn.begin()


def test_two_jobs_are_never_on_the_device_at_once(stop: Settings) -> None:
    heard: list[str] = []

    def give_up() -> None:
        raise TimeoutError

    with (
        training_device(stop, JOB),
        pytest.raises(TimeoutError),
        training_device(stop, "ftjob-2", talk=heard.append, meanwhile=give_up),
    ):
        pass
    assert heard == [f'Waiting for job {JOB} to end its training (gpu.sharing = "stop")']


def test_the_engine_stays_stopped_between_two_jobs(stop: Settings, turn: EngineTurn) -> None:
    with training_device(stop, JOB):
        assert turn.wanted_by() == f"job {JOB}"
    assert not turn.begin()
    with training_device(stop, "ftjob-2"):
        assert turn.wanted_by() == "job ftjob-2"
    wait_until(turn.begin)


def test_a_killed_trainer_keeps_the_device_until_its_child_has_ended(stop: Settings, turn: EngineTurn) -> None:
    environment = {
        **os.environ, "LOCAL_LLM_HOME": str(stop.home), "LOCAL_LLM_GPU__SHARING": "stop",
    }  # fmt: skip
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER], env=environment, stdout=subprocess.PIPE)
    assert trainer.stdout is not None
    child = int(trainer.stdout.readline())
    trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    assert turn.wanted_by() == f"job {JOB}"
    assert not turn.begin()
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: turn.wanted_by() is None)
    wait_until(turn.begin)


def test_a_stopped_supervisor_keeps_the_device_until_its_engine_has_ended(stop: Settings, turn: EngineTurn) -> None:
    assert turn.begin()
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=turn.descriptors)
    turn.end()  # as the kernel does it for a killed one
    looks = []

    def meanwhile() -> None:
        looks.append(engine.poll())
        if len(looks) == 3:
            engine.kill()
            engine.wait()

    with training_device(stop, JOB, meanwhile=meanwhile):
        assert engine.returncode == -signal.SIGKILL
    assert len(looks) >= 3


@pytest.mark.parametrize(
    "gpu", [{"sharing": "split"}, {"sharing": "separate", "engine_devices": "0", "training_devices": "1"}]
)
def test_side_by_side_nobody_waits(tmp_path: Path, gpu: dict[str, str]) -> None:
    settings = sharing(tmp_path, **gpu)
    with training_device(settings, JOB) as first, training_device(settings, "ftjob-2") as second:
        assert (first, second) == ((), ())
        assert training_job(settings) is None


@pytest.mark.parametrize(("training", "engine"), [(0.35, 0.5), (0.4, 0.45), (0.7, 0.15)])
def test_split_takes_trainings_share_from_the_engines(tmp_path: Path, training: float, engine: float) -> None:
    settings = sharing(tmp_path, training_memory_share=training)
    device.require_sharing(settings)
    assert device.engine_memory_share(settings) == engine  # of 0.85


def test_only_split_takes_from_the_engine(tmp_path: Path) -> None:
    assert device.engine_memory_share(sharing(tmp_path, sharing="stop")) == 0.85


@pytest.mark.parametrize("training", [0.75, 0.85, 0.95])
def test_shares_that_leave_the_engine_nothing_are_refused(tmp_path: Path, training: float) -> None:
    with pytest.raises(SettingsError, match="training_memory_share") as caught:
        device.require_sharing(sharing(tmp_path, training_memory_share=training))
    assert "expected more than 0.1" in caught.value.message
    assert "gpu.sharing" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("engine", "training", "told"),
    [
        ("", "1", "gpu.engine_devices names no device"),
        ("0", "", "gpu.training_devices names no device"),
        ("0", " ", "gpu.training_devices names no device"),
        ("0", "0", "both name 0"),
        ("0,1", "1, 2", "both name 1"),
    ],
)
def test_separate_devices_must_be_named_and_differ(tmp_path: Path, engine: str, training: str, told: str) -> None:
    settings = sharing(tmp_path, sharing="separate", engine_devices=engine, training_devices=training)
    with pytest.raises(SettingsError, match=told):
        device.require_sharing(settings)
    with pytest.raises(SettingsError, match=told), training_device(settings, JOB):
        pass


def test_separate_devices_must_suffice_for_all_processes(tmp_path: Path) -> None:
    settings = load_settings(
        environment={"LOCAL_LLM_HOME": str(tmp_path)},
        overrides={
            "gpu.sharing": "separate", "gpu.engine_devices": "0", "gpu.training_devices": "1,2",
            "training.processes": 3,
        },
    )  # fmt: skip
    with pytest.raises(SettingsError, match="names 2 for 3"):
        device.require_sharing(settings)


@pytest.mark.parametrize(("urls", "refused"), [([], True), (["http://engine:8000"], False)])
def test_separate_devices_must_suffice_for_the_engine(tmp_path: Path, urls: list[str], refused: bool) -> None:
    settings = load_settings(
        environment={"LOCAL_LLM_HOME": str(tmp_path)},
        overrides={
            "gpu.sharing": "separate", "gpu.engine_devices": "0,1", "gpu.training_devices": "2",
            "engine.gpus": 4, "engine.urls": urls,
        },
    )  # fmt: skip
    if refused:
        with pytest.raises(SettingsError, match=r"names 2 for 4 of the engine"):
            device.require_sharing(settings)
    else:
        device.require_sharing(settings)


def test_each_side_sees_its_own_devices(tmp_path: Path) -> None:
    settings = sharing(tmp_path, sharing="separate", engine_devices="0,1", training_devices="2")
    assert device.engine_environment(settings) == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert device.training_environment(settings) == {"CUDA_VISIBLE_DEVICES": "2"}
    assert device.engine_environment(sharing(tmp_path)) == device.training_environment(sharing(tmp_path)) == {}
