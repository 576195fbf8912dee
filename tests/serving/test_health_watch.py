"""A process that hangs is told from one that starts, is slow, or had no processor for a while."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from local_llm.settings import load_settings
from serving.health_watch import STARVED_SECONDS, HealthWatch, Patience

WELL = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
DEAD = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
TIMEOUT = 0.2


class Process:
    """Answers each connection with what `answers` says: bytes after so many seconds, or None for nothing ever."""

    def __init__(self, path: Path):
        self.answers: Callable[[int], tuple[float, bytes] | None] = lambda _: (0, WELL)
        self.asked = 0
        self.makes_tokens = True
        self.tokens = 0
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self._open):
            one.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                if connection.recv(4096).startswith(b"POST /v1/completions"):
                    self.tokens += 1
                    if self.makes_tokens:
                        connection.sendall(WELL)
                    continue
                answer = self.answers(self.asked)
                self.asked += 1
                if answer is not None:
                    time.sleep(answer[0])
                    connection.sendall(answer[1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.sock"


@pytest.fixture
def process(path: Path) -> Iterator[Process]:
    one = Process(path)
    yield one
    one.close()


@pytest.fixture
def watch(path: Path) -> HealthWatch:
    return watch_of(path)


def watch_of(path: Path, **changes: float) -> HealthWatch:
    values = {"interval_seconds": 0.05, "timeout_seconds": TIMEOUT, "failures": 3, "start_seconds": 60, **changes}
    return HealthWatch(path, Patience(**values), "m")  # type: ignore[arg-type]


def look_for(watch: HealthWatch, seconds: float, until: Callable[[], bool] = lambda: False) -> str | None:
    """As the supervisor does; none of its rounds may wait."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not until():
        began = time.monotonic()
        reason = watch.look()
        assert time.monotonic() - began < TIMEOUT, "it waited"
        if reason is not None:
            return reason
        time.sleep(0.01)
    return None


def become_ready(watch: HealthWatch) -> None:
    assert look_for(watch, 10, lambda: watch.ready) is None
    assert watch.ready


def test_one_that_never_answered_is_starting_and_left_alone(
    process: Process, watch: HealthWatch, tmp_path: Path
) -> None:
    process.answers = lambda _: None
    assert look_for(watch, 5 * TIMEOUT) is None
    assert look_for(watch_of(tmp_path / "nobody.sock"), 5 * TIMEOUT) is None
    assert not watch.ready


def test_one_that_is_silent_several_times_in_a_row_hangs(process: Process, watch: HealthWatch) -> None:
    become_ready(watch)
    asked = process.asked
    process.answers = lambda _: None
    assert look_for(watch, 20) == "it is alive but did not answer 3 times in a row within 0.2 s"
    assert process.asked == asked + 3


def test_one_that_answers_in_between_does_not(process: Process, watch: HealthWatch) -> None:
    become_ready(watch)
    process.answers = lambda number: None if number % 3 else (0, WELL)
    assert look_for(watch, 20, lambda: process.asked > 10) is None


def test_one_that_is_slow_does_not(process: Process, watch: HealthWatch) -> None:
    become_ready(watch)
    process.answers = lambda _: (TIMEOUT / 2, WELL)
    assert look_for(watch, 20, lambda: process.asked > 10) is None


@pytest.mark.parametrize("answer", [DEAD, b""])
def test_one_that_says_it_is_dead_or_hangs_up_is_ended_too(
    process: Process, watch: HealthWatch, answer: bytes
) -> None:
    become_ready(watch)

    def answers(_: int) -> tuple[float, bytes]:
        if not answer:
            process._open[-1].shutdown(socket.SHUT_RDWR)
        return 0, answer

    process.answers = answers
    assert look_for(watch, 20) is not None


def test_one_that_listens_no_more_is_ended(process: Process, watch: HealthWatch) -> None:
    become_ready(watch)
    process.close()
    assert look_for(watch, 20) is not None


def test_while_nobody_looks_no_silence_is_counted(process: Process, path: Path) -> None:
    """The whole machine slept, or was too busy even for us: an engine then had no time to answer either."""
    watch = watch_of(path, failures=1, timeout_seconds=1)
    become_ready(watch)
    process.answers = lambda _: (STARVED_SECONDS + 0.5, WELL)
    asked = process.asked
    look_for(watch, 20, lambda: process.asked > asked)
    time.sleep(STARVED_SECONDS + 0.3)
    assert look_for(watch, 0.9) is None


def test_a_new_life_starts_from_nothing(process: Process, watch: HealthWatch) -> None:
    become_ready(watch)
    assert watch.start_took_seconds >= 0
    process.answers = lambda _: None
    watch.begin()
    assert not watch.ready
    assert look_for(watch, 5 * TIMEOUT) is None


def test_a_start_that_takes_too_long_is_ended(path: Path) -> None:
    assert "it was not up after" in str(look_for(watch_of(path, start_seconds=0.3), 20))


def test_one_whose_server_answers_while_nothing_computes_hangs(process: Process, path: Path) -> None:
    watch = watch_of(path, stall_seconds=1, token_interval_seconds=0.1)
    become_ready(watch)
    assert look_for(watch, 20, lambda: process.tokens > 3) is None
    process.makes_tokens = False
    assert look_for(watch, 20) == "it is alive but made no token in 1 s"


def test_without_a_limit_no_token_is_asked_for(process: Process, path: Path) -> None:
    watch = watch_of(path, stall_seconds=0, token_interval_seconds=0)
    become_ready(watch)
    assert look_for(watch, 1) is None
    assert process.tokens == 0


def test_the_limit_for_a_token_is_longer_than_any_request_may_take() -> None:
    """On a slow machine one long prompt holds all others up."""
    settings = load_settings(environment={"LOCAL_LLM_HOME": "/h"})
    assert Patience.of(settings).stall_seconds == settings.server.request_timeout_seconds + 60
    settings = load_settings(environment={"LOCAL_LLM_HOME": "/h", "LOCAL_LLM_ENGINE__STALL_SECONDS": "0"})
    assert Patience.of(settings).stall_seconds == 0
