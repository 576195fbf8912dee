"""The processes of the server: started, watched, started again after a growing pause, ended."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from local_llm import processes
from local_llm.device import EngineTurn
from local_llm.errors import LocalLLMError
from serving.health_watch import HealthWatch
from serving.log_rotation import LogRotation

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
# A child that ran this long was well: its next pause is the first one again.
STEADY_SECONDS = 60.0
GRACE_SECONDS = 15.0
LOG_TAIL_BYTES = 8192
EXPECTED = (OSError, LocalLLMError, SQLAlchemyError)

Talk = Callable[[str], None]


@dataclass
class Child:
    """One supervised process: what to run, and how its last run went."""

    name: str
    command: Sequence[str] | Callable[[], Sequence[str]]  # the latter: as it has to be at each start
    environment: Mapping[str, str]
    log: Path
    pass_fds: Sequence[int] = ()
    socket: Path | None = None  # its own, which it does not remove when it ends and cannot bind while it is there
    health: HealthWatch | None = None  # where being alive is not enough
    turn: EngineTurn | None = None  # where it shares its device with training by turns
    grace_seconds: float = GRACE_SECONDS
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    pause_seconds: float = FIRST_PAUSE_SECONDS
    endings: list[int] = field(default_factory=list)
    killed_at: float | None = None  # when the grace of a run that was told to stop is over
    held_off: bool = False  # it is training's turn

    def start(self, records: Path) -> None:
        command = self.command() if callable(self.command) else self.command
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = processes.start_child(
                self.name,
                command,
                environment=self.environment,
                log=log,
                records=records,
                pass_fds=(*self.pass_fds, *(self.turn.descriptors if self.turn else ())),
            )
        self.started_at = time.monotonic()
        if self.health is not None:
            self.health.begin()

    @property
    def ready(self) -> bool:
        """Whether it answers, as far as anyone asks."""
        return self.process is not None and (self.health is None or self.health.ready)

    def hangs(self) -> str | None:
        """Why a process that runs has to be ended; None if it need not, or was told to stop already."""
        if self.health is None or self.process is None or self.killed_at is not None:
            return None
        return self.health.look()

    def kill(self) -> None:
        """Ends its whole group, as a crash would."""
        if self.process is not None:
            processes.kill_group(self.process.pid)

    def ask_to_stop(self) -> None:
        """SIGTERM, and SIGKILL once the grace is over: note_ending() sees to that, so that nobody waits here."""
        if self.process is not None and self.killed_at is None:
            self.process.terminate()
            self.killed_at = time.monotonic() + self.grace_seconds

    def note_ending(self) -> int | None:
        """The exit code if the process has just ended by itself; then the time of the next start is set."""
        if self.process is None:
            return None
        if self.killed_at is not None and time.monotonic() >= self.killed_at:
            self.process.kill()
        if self.process.poll() is None:
            return None
        code = self.process.returncode
        processes.kill_group(self.process.pid)  # what the leader left behind
        self.process = None
        if self.killed_at is not None:  # it was told to
            self.killed_at = None
            return None
        if time.monotonic() - self.started_at > STEADY_SECONDS:
            self.pause_seconds = FIRST_PAUSE_SECONDS / 2
        self.delay()
        self.endings.append(code)
        return code

    def delay(self) -> None:
        """Puts the next start off, by twice as long as the last time."""
        self.pause_seconds = min(2 * self.pause_seconds, LONGEST_PAUSE_SECONDS)
        self.start_at = time.monotonic() + self.pause_seconds

    def last_words(self) -> str:
        """The last line of the log that speaks of an error, or the last one at all."""
        lines = _tail(self.log)
        errors = [line for line in lines if "Error" in line or "error:" in line]
        return (errors or lines or ["its log is empty"])[-1]


class Children:
    """All of them. `look` does what is to be done now and never waits for long; `end` ends them all."""

    def __init__(self, children: Sequence[Child], records: Path, talk: Talk, rotation: LogRotation):
        self._children = children
        self._rotation = rotation
        self._records = records
        self._talk = talk

    def find(self, name: str) -> Child | None:
        return next((child for child in self._children if child.name == name), None)

    def look(self) -> list[Child]:
        """Starts what should run and stops what should not; returns those that ended by themselves."""
        return [child for child in self._children if self._care_for(child)]

    def end(self) -> None:
        """All are told to stop at once; then each has its grace."""
        running = [child for child in self._children if child.process is not None]
        for child in running:
            child.ask_to_stop()
        for child in running:
            assert child.process is not None
            assert child.killed_at is not None
            processes.stop_child(child.process, grace_seconds=max(0, child.killed_at - time.monotonic()))
        for record in self._records.glob("*.process.json"):
            record.unlink()

    def _care_for(self, child: Child) -> bool:
        """Whether it has just ended by itself, or hung and was ended."""
        self._rotation.look(child.log)
        reason = child.hangs()
        if reason is not None:
            self._talk(f"{child.name}: {reason}; ending it")
            child.kill()
        code = child.note_ending()
        if code is not None:
            self._talk(
                f"{child.name} ended with exit code {code}: {child.last_words()}; "
                f"starting it again in {child.pause_seconds:.0f} s"
            )
        if self._has_turn(child) and child.process is None and time.monotonic() >= child.start_at:
            self._start(child)
        return code is not None

    def _start(self, child: Child) -> None:
        self._rotation.start(child.log)
        try:
            child.start(self._records)
        except Exception as error:
            # The disk is full, too many processes run, or the database is held: that may pass. And whatever else it
            # is, the other children are well.
            child.delay()
            reason = str(error) if isinstance(error, EXPECTED) else f"{type(error).__name__}: {error}"
            self._talk(f"{child.name} cannot be started: {reason}; trying again in {child.pause_seconds:.0f} s")

    def _has_turn(self, child: Child) -> bool:
        """Whether it may use its device now. While a job wants that, the child is stopped and gives it back."""
        if child.turn is None:
            return True
        job = child.turn.wanted_by()
        if job is None:
            return child.process is not None or self._begin(child, child.turn)
        if not child.held_off:
            child.held_off = True
            self._talk(f'{child.name}: stopped while {job} trains (gpu.sharing = "stop")')
        child.ask_to_stop()
        if child.process is None:
            child.turn.end()
        return False

    def _begin(self, child: Child, turn: EngineTurn) -> bool:
        if not turn.begin():
            return False
        if child.held_off:
            child.held_off = False
            self._talk(f"{child.name}: starting it again")
        return True


def _tail(log: Path) -> list[str]:
    if not log.exists():
        return []
    with log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        text = handle.read().decode(errors="replace").replace("\0", "")  # of a hole that rotation left
    return [line for line in text.splitlines() if line.strip()]
