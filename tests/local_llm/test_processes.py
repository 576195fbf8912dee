import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from local_llm.processes import end_leftovers, start_child, start_time, stop_child

# Leaves a grandchild behind that ignores SIGTERM, as a killed API server leaves its engine.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def start(records: Path, program: str = "import time; time.sleep(600)") -> subprocess.Popen[bytes]:
    return start_child("engine", [sys.executable, "-c", program], environment=os.environ, log=None, records=records)


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while start_time(pid) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert start_time(pid) is None


def test_what_a_killed_parent_left_is_ended_at_the_next_start(tmp_path: Path) -> None:
    child = start(tmp_path)
    assert end_leftovers(tmp_path) == ["engine"]
    assert child.wait(10) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_a_recorded_number_that_now_names_another_process_is_left_alone(tmp_path: Path) -> None:
    child = start(tmp_path)
    record = tmp_path / "engine.process.json"
    record.write_text(record.read_text().replace(str(start_time(child.pid)), "1"))
    assert end_leftovers(tmp_path) == []
    assert child.poll() is None
    stop_child(child, grace_seconds=1)


def test_a_group_of_before_a_boot_is_a_strangers(tmp_path: Path) -> None:
    """Its leader was gone, so its number was taken for ours, and everything in it was killed."""
    records, kept = tmp_path / "records", tmp_path / "kept"
    with (tmp_path / "log").open("wb") as log:
        child = start_child(
            "engine", [sys.executable, "-c", STUBBORN], environment=os.environ, log=log, records=records
        )
    while not (tmp_path / "log").read_text().strip():
        time.sleep(0.02)
    grandchild = int((tmp_path / "log").read_text())
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    kept.mkdir()
    record = records / "engine.process.json"
    (kept / record.name).write_text(record.read_text())
    for other in ("of-before pid:[1]", ""):  # another boot, and none told
        content = json.loads((kept / record.name).read_text()) | {"boot": other}
        record.write_text(json.dumps(content))
        assert end_leftovers(records) == []
        assert not record.exists()
        assert start_time(grandchild) is not None
    assert end_leftovers(kept) == ["engine"]
    wait_until_gone(grandchild)


def test_stopping_ends_the_whole_group_even_where_it_ignores_us(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        child = start_child(
            "engine", [sys.executable, "-c", STUBBORN], environment=os.environ, log=log, records=tmp_path
        )
    while not (tmp_path / "log").read_text().strip():
        time.sleep(0.02)
    grandchild = int((tmp_path / "log").read_text())
    stop_child(child, grace_seconds=0.2)
    wait_until_gone(grandchild)


def test_a_group_whose_leader_died_is_still_ended(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        child = start_child(
            "engine", [sys.executable, "-c", STUBBORN], environment=os.environ, log=log, records=tmp_path
        )
    while not (tmp_path / "log").read_text().strip():
        time.sleep(0.02)
    grandchild = int((tmp_path / "log").read_text())
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert start_time(grandchild) is not None
    assert end_leftovers(tmp_path) == ["engine"]
    wait_until_gone(grandchild)


def test_a_child_goes_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = f"""
import os, sys, time
from pathlib import Path
from local_llm.processes import start_child
child = start_child("c", [sys.executable, "-c", "import time; time.sleep(600)"],
    environment=os.environ, log=None, records=Path({str(tmp_path)!r}))
print(child.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until_gone(child)


def test_a_process_that_others_start_for_us_goes_with_its_parent() -> None:
    """Even in a session of its own, as torch's launcher starts its processes, and deaf to SIGTERM."""
    worker = """
import os, signal, time
from local_llm.processes import end_with_parent
end_with_parent()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(600)
"""
    launcher = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {worker!r}], start_new_session=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until_gone(pid)
