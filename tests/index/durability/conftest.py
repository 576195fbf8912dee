"""Boxes without an encoder, whose collections bring vectors of their own; and disks that are small."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from index.open_stores import UpkeepPolicy
from index.service import IndexService
from local_llm.permissions import Caller, local_admin
from local_llm.settings import load_settings
from local_llm.state import open_state

Box = tuple[IndexService, Caller]


@pytest.fixture
def open_box() -> Iterator[Callable[[Path], Box]]:
    """A service over a home, with upkeep that hardly rests if asked for."""
    with ExitStack() as stack:

        def open_at(home: Path, *, upkeep: bool = False) -> Box:
            settings = load_settings(environment={"LOCAL_LLM_HOME": str(home), "LOCAL_LLM_INDEX__DEVICE": "cpu"})
            state = open_state(settings.place)
            stack.callback(state.close)
            service = IndexService(settings, state, UpkeepPolicy(seconds=0.02))
            stack.callback(service.close)
            if upkeep:
                service.start_upkeep()
            return service, local_admin(state.local_project_id())

        yield open_at


@pytest.fixture
def box(tmp_path: Path, open_box: Callable[[Path], Box]) -> Box:
    return open_box(tmp_path / "home")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Of 3 MB, emptied and unmounted afterwards."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
