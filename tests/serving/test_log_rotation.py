"""Logs are moved while they are written, and no line of them is lost, split or told twice."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from local_llm.settings import LogSettings
from serving.log_rotation import Cut, LogRotation, known_cut

LINES = 20_000
# Writes lines of all lengths, as fast as it can, as a child does: to a descriptor opened for appending.
WRITER = f"""
import sys, time
for number in range({LINES}):
    sys.stdout.write(f"line {{number}} {{'x' * (number % 97)}}\\n")
    sys.stdout.flush()
    if number % 400 == 0:
        time.sleep(0.01)  # on one core the other has to have its turn, too
"""
LIMIT = 64 * 1024


@pytest.fixture(params=[Cut.COLLAPSE, Cut.PUNCH])
def cut(request: pytest.FixtureRequest, tmp_path: Path) -> Cut:
    if known_cut(tmp_path) is Cut.NONE or (request.param is Cut.COLLAPSE and known_cut(tmp_path) is Cut.PUNCH):
        pytest.skip(f"the file system of {tmp_path} does not know it")
    return Cut(request.param)


def told(_: str) -> None:
    raise AssertionError("nothing was to be told")


def lines_of(log: Path) -> list[str]:
    """From the oldest to the newest, without the blank one that fills up a block."""
    older = sorted(log.parent.glob(f"{log.name}.*"), key=lambda path: -int(path.suffix[1:]))
    text = "".join(path.read_bytes().replace(b"\0", b"").decode() for path in [*older, log])
    return [line for line in text.split("\n") if line.strip()]


def test_no_line_is_lost_while_a_process_writes(tmp_path: Path, cut: Cut) -> None:
    log = tmp_path / "engine.log"
    rotation = LogRotation(LogSettings(max_bytes=LIMIT, keep=10_000), told, cut)
    with log.open("ab") as handle:
        writer = subprocess.Popen([sys.executable, "-c", WRITER], stdout=handle)
    while writer.poll() is None:
        rotation.look(log)
    assert writer.returncode == 0
    rotation.look(log)
    assert len(list(tmp_path.iterdir())) > 5, "it was moved often"
    assert lines_of(log) == [f"line {number} {'x' * (number % 97)}" for number in range(LINES)]
    assert log.stat().st_blocks * 512 <= 2 * LIMIT


def test_only_so_many_are_kept(tmp_path: Path, cut: Cut) -> None:
    log = tmp_path / "engine.log"
    rotation = LogRotation(LogSettings(max_bytes=LIMIT, keep=2), told, cut)
    for number in range(5):
        with log.open("ab") as handle:
            handle.write(f"{number}\n".encode() * LIMIT)
        rotation.look(log)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine.log", "engine.log.1", "engine.log.2"]
    assert set((tmp_path / "engine.log.2").read_text().split()) == {"3"}
    assert set((tmp_path / "engine.log.1").read_text().split()) == {"4"}


def test_a_line_that_is_not_finished_stays_with_its_rest(tmp_path: Path, cut: Cut) -> None:
    log = tmp_path / "engine.log"
    log.write_text("a\n" * LIMIT + "begun")
    LogRotation(LogSettings(max_bytes=LIMIT, keep=1), told, cut).look(log)
    with log.open("a") as handle:
        handle.write(" and finished\n")
    assert log.read_text().replace("\0", "").strip() == "begun and finished"


def test_a_log_of_one_endless_line_is_cut_anywhere(tmp_path: Path, cut: Cut) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"x" * (3 * LIMIT + 1))
    LogRotation(LogSettings(max_bytes=LIMIT, keep=1), told, cut).look(log)
    assert (tmp_path / "engine.log.1").stat().st_size == 3 * LIMIT + 1
    assert log.read_bytes().strip(b"\0 \n") in (b"", b"x")


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    rotation = LogRotation(LogSettings(max_bytes=LIMIT), told)
    log = tmp_path / "engine.log"
    rotation.look(log)
    log.write_text("x" * LIMIT)
    rotation.look(log)
    rotation.start(log)
    assert list(tmp_path.iterdir()) == [log]


@pytest.mark.parametrize("cut", [Cut.NONE, Cut.COLLAPSE])
def test_before_a_start_a_log_is_moved_whole(tmp_path: Path, cut: Cut) -> None:
    """On a file system that knows neither way this is all there is."""
    log = tmp_path / "engine.log"
    log.write_text("x" * (LIMIT + 1))
    rotation = LogRotation(LogSettings(max_bytes=LIMIT), told, cut)
    if cut is Cut.NONE:
        rotation.look(log)
        assert list(tmp_path.iterdir()) == [log]
    rotation.start(log)
    assert [path.name for path in tmp_path.iterdir()] == ["engine.log.1"]


def test_lines_that_cannot_be_moved_stay_and_that_is_told_once(
    tmp_path: Path, make_unwritable: Callable[[Path], None]
) -> None:
    log = tmp_path / "engine.log"
    log.write_text("x\n" * LIMIT)
    make_unwritable(tmp_path / "engine.log.1")
    heard: list[str] = []
    rotation = LogRotation(LogSettings(max_bytes=LIMIT, keep=1), heard.append)
    for _ in range(3):
        rotation.look(log)
    assert len(heard) == 1
    assert "engine.log is too long and cannot be moved" in heard[0]
    assert log.read_text() == "x\n" * LIMIT


@pytest.fixture
def make_unwritable() -> Callable[[Path], None]:
    def make(path: Path) -> None:
        (path / "in the way").mkdir(parents=True)

    return make
