"""What the index server acknowledged survives SIGKILL: scripts/bench_index_kills.py, a few rounds of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "bench_index_kills.py"


@pytest.mark.slow
def test_kills_at_random_instants_lose_nothing(figures: dict[str, object]) -> None:
    """KILLS=200 for as many as the figures in docs/benchmarks.md."""
    kills = os.environ.get("KILLS", "6")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), os.environ["PYTHONPATH"]])}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", kills],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    figures["kills of the index server"] = told
    assert told["kills"] == int(kills)
    assert told["changes"] > 0
    assert set(told["faults"].values()) == {0}
