"""How vLLM is started: what of the device is its own."""

from pathlib import Path
from typing import Any

import pytest

from local_llm.models import Manifest, Model
from local_llm.settings import load_settings
from serving import engine

MODEL = Model(Path("/m"), Manifest("m", "base", "test", "MIT", 0, {}))


def started(**overrides: Any) -> tuple[list[str], dict[str, str]]:
    settings = load_settings(
        environment={"LOCAL_LLM_HOME": "/h"}, overrides={f"gpu.{k}": v for k, v in overrides.items()}
    )
    return engine.command(settings, MODEL, Path("/s")), engine.environment(settings)


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A box whose driver shows a GPU."""
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def option(line: list[str], name: str) -> str | None:
    return line[line.index(name) + 1] if name in line else None


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("sharing", "share"), [("split", "0.5"), ("stop", "0.85")])
def test_on_a_gpu_the_engine_leaves_training_its_share(sharing: str, share: str) -> None:
    line, environment = started(sharing=sharing)
    assert option(line, "--gpu-memory-utilization") == share
    assert "CUDA_VISIBLE_DEVICES" not in environment


@pytest.mark.usefixtures("gpu")
def test_with_devices_of_its_own_it_takes_its_whole_share_of_them() -> None:
    line, environment = started(sharing="separate", engine_devices="0,1", training_devices="2")
    assert option(line, "--gpu-memory-utilization") == "0.85"
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_an_engine_that_stops_for_jobs_finishes_its_answers() -> None:
    assert option(started(sharing="stop")[0], "--shutdown-timeout") == "10"
    assert option(started()[0], "--shutdown-timeout") is None
