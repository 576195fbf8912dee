"""Whether an engine that is alive also answers: asked from time to time over its socket, without ever waiting.

Two questions, because an engine is several processes: /health is answered by its server (vLLM 0.32 looks at nothing
else unless the process behind it has ended), and a token can only come from the one that computes.

The supervisor has no threads, because it forks, and its other children need it meanwhile. So a question is a
non-blocking connection that is looked at in each of its rounds.
"""

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from local_llm.settings import Settings

HEALTH = b"GET /health HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n"
GOOD_STATUS = b"200"
STATUS_LINE_BYTES = 12  # HTTP/1.1 200
# While it starts nobody is served: its first good answer should not be missed for long.
STARTING_INTERVAL_SECONDS = 0.5
TOKEN_INTERVAL_SECONDS = 60.0
# vLLM's priorities: the smallest is served first.
BEFORE_ALL_OTHERS = -1_000_000
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
    stall_seconds: float = 0  # for a token; 0: none is asked for
    token_interval_seconds: float = TOKEN_INTERVAL_SECONDS

    @classmethod
    def of(cls, settings: Settings) -> "Patience":
        engine = settings.engine
        stall = engine.stall_seconds
        if stall is None:
            stall = settings.server.request_timeout_seconds + TOKEN_INTERVAL_SECONDS
        return cls(
            engine.health_interval_seconds,
            engine.health_timeout_seconds,
            engine.health_failures,
            engine.start_timeout_seconds,
            stall,
        )


class HealthWatch:
    """One process, over all its lives. `begin` with each of them, then `look` in every round."""

    def __init__(self, socket_path: Path, patience: Patience, model: str):
        self._socket_path = socket_path
        self._patience = patience
        self._token_request = token_request(model)
        self._token: Question | None = None
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
        self._token_at = 0.0  # set once it is ready
        self._failures = 0

    def end(self) -> None:
        self._put_away(None)
        self._end_token()

    def look(self) -> str | None:
        """Why the process has to be ended; None while nothing speaks for it."""
        now = time.monotonic()
        self._forgive(now - self._looked_at)
        self._looked_at = now
        return self._look_at_health(now) or self._look_at_token(now)

    def _look_at_token(self, now: float) -> str | None:
        if not self.ready or self._patience.stall_seconds == 0:
            return None
        if self._token is None:
            if now >= self._token_at:
                self._token = Question(self._socket_path, self._token_request)
        elif self._token.answer() is not None:  # also a refusal is an answer
            self._end_token()
            self._token_at = now + self._patience.token_interval_seconds
        elif now - self._token.asked_at > self._patience.stall_seconds:
            return f"it is alive but made no token in {self._patience.stall_seconds:g} s"
        return None

    def _end_token(self) -> None:
        if self._token is not None:
            self._token.close()
            self._token = None

    def _look_at_health(self, now: float) -> str | None:
        if self._question is None:
            if now < self._ask_at:
                return None
            self._question = Question(self._socket_path, HEALTH)
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
            for question in (self._question, self._token):
                if question is not None:
                    question.asked_at += absent_seconds

    def _note(self, now: float, *, well: bool) -> str | None:
        if well:
            if not self.ready:
                self.ready = True
                self.start_took_seconds = now - self._began_at
                self._ask_at = now + self._patience.interval_seconds
                self._token_at = now + self._patience.token_interval_seconds
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
    """A small request over a Unix socket, and whether its answer begins well."""

    def __init__(self, socket_path: Path, request: bytes):
        self.asked_at = time.monotonic()
        self._request = request
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
                self._socket.send(self._request)
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


def token_request(model: str) -> bytes:
    """The smallest piece of work there is."""
    body = json.dumps({"model": model, "prompt": "a", "max_tokens": 1, "priority": BEFORE_ALL_OTHERS}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
