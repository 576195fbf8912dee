"""Whether a process that is alive also answers: asked from time to time over its socket, without ever waiting.

The supervisor has no threads, because it forks, and its other children need it meanwhile. So a question is a
non-blocking connection that is looked at in each of its rounds.
"""

import socket
import time
from dataclasses import dataclass
from pathlib import Path

from local_llm.engine_settings import EngineSettings

QUESTION = b"GET /health HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n"
GOOD_STATUS = b"200"
STATUS_LINE_BYTES = 12  # HTTP/1.1 200
# While it starts nobody is served: its first good answer should not be missed for long.
STARTING_INTERVAL_SECONDS = 0.5
# Rounds come five times a second. When we ourselves did not run for longer than this, the machine slept or had no
# time for us, nor for whom we asked: those seconds are not counted against it.
STARVED_SECONDS = 2.0


@dataclass(frozen=True)
class Patience:
    """How long silence may last. Before the first good answer only `start_seconds` counts."""

    interval_seconds: float
    timeout_seconds: float
    failures: int
    start_seconds: float

    @classmethod
    def of(cls, engine: EngineSettings) -> "Patience":
        return cls(
            engine.health_interval_seconds,
            engine.health_timeout_seconds,
            engine.health_failures,
            engine.start_timeout_seconds,
        )


class HealthWatch:
    """One process, over all its lives. `begin` with each of them, then `look` in every round."""

    def __init__(self, socket_path: Path, patience: Patience):
        self._socket_path = socket_path
        self._patience = patience
        self._question: Question | None = None
        self._answered: Question | None = None  # closed with the next one: the process may not have said it all
        self.begin()

    def begin(self) -> None:
        """A new life: it is starting."""
        self.end()
        self.ready = False
        self.start_took_seconds = 0.0  # once it is ready
        self._began_at = self._looked_at = time.monotonic()
        self._ask_at = self._began_at
        self._failures = 0

    def end(self) -> None:
        self._put_away(None)

    def look(self) -> str | None:
        """Why the process has to be ended; None while nothing speaks for it."""
        now = time.monotonic()
        self._forgive(now - self._looked_at)
        self._looked_at = now
        if self._question is None:
            if now < self._ask_at:
                return None
            self._question = Question(self._socket_path)
        answer = self._question.answer()
        if answer is None and now - self._question.asked_at < self._patience.timeout_seconds:
            return None
        self._ask_at = self._question.asked_at + self._interval()
        self._put_away(self._question if answer is not None else None)
        return self._note(now, well=answer is True)

    def _put_away(self, answered: "Question | None") -> None:
        for question in (self._question, self._answered):
            if question is not None and question is not answered:
                question.close()
        self._question, self._answered = None, answered

    def _interval(self) -> float:
        return self._patience.interval_seconds if self.ready else STARTING_INTERVAL_SECONDS

    def _forgive(self, absent_seconds: float) -> None:
        if absent_seconds > STARVED_SECONDS:
            self._began_at += absent_seconds
            if self._question is not None:
                self._question.asked_at += absent_seconds

    def _note(self, now: float, *, well: bool) -> str | None:
        if well:
            if not self.ready:
                self.ready = True
                self.start_took_seconds = now - self._began_at
                self._ask_at = now + self._patience.interval_seconds
            self._failures = 0
            return None
        if not self.ready:
            waited = now - self._began_at
            return f"it was not up after {waited:.0f} s" if waited > self._patience.start_seconds else None
        self._failures += 1
        if self._failures < self._patience.failures:
            return None
        return (
            f"it is alive but did not answer {self._failures} times in a row "
            f"within {self._patience.timeout_seconds:g} s"
        )


class Question:
    """GET /health over a Unix socket."""

    def __init__(self, socket_path: Path):
        self.asked_at = time.monotonic()
        self._socket_path = socket_path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._connected = False
        self._answer = b""

    def answer(self) -> bool | None:
        """True: well. False: not well, or nobody there. None: no answer yet."""
        try:
            if not self._connected:
                self._socket.connect(str(self._socket_path))
                self._connected = True
                self._socket.send(QUESTION)
            data = self._socket.recv(STATUS_LINE_BYTES - len(self._answer))
        except BlockingIOError:  # it takes no more connections, or says nothing yet
            return None
        except OSError:
            return False
        self._answer += data
        if data and len(self._answer) < STATUS_LINE_BYTES:
            return None
        return self._answer[9:12] == GOOD_STATUS

    def close(self) -> None:
        self._socket.close()
