"""The parent: starts gateway, engine, index server and trainer, and keeps them running.

It holds the listening socket and does nothing else, so that it has no reason to die. A child that ends is
started again after a growing pause. Leftovers of a killed parent are ended before anything is started.
"""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from local_llm import offline, processes
from local_llm.errors import LocalLLMError, UnavailableError
from local_llm.fileio import write_json
from local_llm.keys import KeyStore
from local_llm.locks import exclusive_lock
from local_llm.models import Model, ModelStore
from local_llm.settings import Settings
from local_llm.state import open_state
from serving import engine, preflight

POLL_SECONDS = 0.2
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
# A child that ran this long was well: its next pause is the first one again.
STEADY_SECONDS = 60.0
GRACE_SECONDS = 15.0
LOG_TAIL_BYTES = 8192

Talk = Callable[[str], None]


@dataclass
class Child:
    """One supervised process: what to run, and how its last run went."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    pass_fds: Sequence[int] = ()
    socket: Path | None = None  # its own, which it does not remove when it ends and cannot bind while it is there
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    pause_seconds: float = FIRST_PAUSE_SECONDS
    endings: list[int] = field(default_factory=list)

    def start(self, records: Path) -> None:
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = processes.start_child(
                self.name,
                self.command,
                environment=self.environment,
                log=log,
                records=records,
                pass_fds=self.pass_fds,
            )
        self.started_at = time.monotonic()

    def note_ending(self) -> int | None:
        """The exit code if the process has just ended; then the time of the next start is set."""
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        processes.kill_group(self.process.pid)  # what the leader left behind
        if time.monotonic() - self.started_at > STEADY_SECONDS:
            self.pause_seconds = FIRST_PAUSE_SECONDS / 2
        self.delay()
        self.process = None
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


class Supervisor:
    def __init__(self, settings: Settings, settings_file: Path | None, talk: Talk):
        self._settings = settings
        self._settings_file = settings_file
        self._talk = talk
        self._records = settings.place.run / "serving"
        self._stopping = False
        self._children: list[Child] = []
        self._was_ready = False

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT.

        Raises: LocalLLMError for what preflight finds, and if the engine never comes up.
        """
        home = self._settings.place.ensure()
        with ExitStack() as stack:
            stack.enter_context(exclusive_lock(home.run / "server.lock", f"the server of {home.root}"))
            self._end_leftovers()
            model = self._check()
            listener = stack.enter_context(preflight.bind(self._settings.server))
            self._announce(listener)
            stack.callback((home.run / "server.json").unlink, missing_ok=True)
            signal.signal(signal.SIGTERM, self._stop)
            signal.signal(signal.SIGINT, self._stop)
            self._children = self._plan(model, listener)
            try:
                self._watch()
            finally:
                self._end_children()
        self._talk("stopped")

    def _check(self) -> Model:
        state = open_state(self._settings.place)
        try:
            keys = KeyStore(state)
            server = self._settings.server
            if server.first_key_file:
                keys.create_first(state.local_project_id(), server.first_key_file)
            preflight.require_keys_beyond_loopback(server.host, keys)
            if not keys.any_created():
                self._talk("no key was created: listening on loopback only (local-llm keys create NAME)")
        finally:
            state.close()
        store = ModelStore(self._settings.place.models)
        store.get(self._settings.index.encoder, "encoder")
        model = store.get(self._settings.engine.model, "base")
        engine.require_memory(self._settings.engine, model)
        return model

    def _end_leftovers(self) -> None:
        for name in processes.end_leftovers(self._records):
            self._talk(f"ended a leftover {name} process of an earlier run")

    def _announce(self, listener: socket.socket) -> None:
        url = preflight.url_of(listener)
        write_json(self._settings.place.run / "server.json", {"url": url})
        self._talk(f"listening on {url}; starting the engine (its log: {self._settings.place.logs / 'engine.log'})")

    def _plan(self, model: Model, listener: socket.socket) -> list[Child]:
        place = self._settings.place
        engine_socket = place.socket("engine")
        ours = offline.environment()
        options = ["--settings", str(self._settings_file)] if self._settings_file else []
        descriptor = listener.fileno()

        def child(name: str, *line: str, fds: Sequence[int] = ()) -> Child:
            return Child(name, (sys.executable, "-m", *line, *options), ours, place.logs / f"{name}.log", fds)

        return [
            child("gateway", "serving.gateway", "--fd", str(descriptor), fds=(descriptor,)),
            Child(
                "engine",
                engine.command(self._settings.engine, model, engine_socket),
                engine.environment(self._settings.engine),
                place.logs / "engine.log",
                socket=engine_socket,
            ),
            child("index", "index"),
            child("trainer", "training"),
        ]

    def _watch(self) -> None:
        started = time.monotonic()
        while not self._stopping:
            for child in self._children:
                self._care_for(child)
            if not self._was_ready:
                self._look_for_engine(time.monotonic() - started)
            time.sleep(POLL_SECONDS)

    def _look_for_engine(self, waited_seconds: float) -> None:
        if self._engine_answers():
            self._was_ready = True
            self._talk("ready")
        elif waited_seconds > self._settings.engine.start_timeout_seconds:
            raise UnavailableError(
                f"the engine was not up after {waited_seconds:.0f} s",
                hint=f"see {self._settings.place.logs / 'engine.log'}, or raise engine.start_timeout_seconds",
            )

    def _care_for(self, child: Child) -> None:
        code = child.note_ending()
        if code is not None:
            self._talk(
                f"{child.name} ended with exit code {code}: {child.last_words()}; "
                f"starting it again in {child.pause_seconds:.0f} s"
            )
            self._give_up_if_hopeless(child)
        if child.process is None and time.monotonic() >= child.start_at:
            try:
                child.start(self._records)
            except OSError as error:  # the disk is full, or too many processes run: that may pass
                child.delay()
                self._talk(f"{child.name} cannot be started: {error}; trying again in {child.pause_seconds:.0f} s")

    def _give_up_if_hopeless(self, child: Child) -> None:
        """An engine that never came up will not: its settings or its model are wrong."""
        if child.name == "engine" and not self._was_ready and len(child.endings) >= 2:
            raise UnavailableError(
                f"the engine does not start: {child.last_words()}",
                hint=f"see {child.log}, and the [engine] settings in docs/settings.md",
            )

    def _engine_answers(self) -> bool:
        path = self._settings.place.socket("engine")
        if not path.exists():
            return False
        try:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=1) as client:
                return client.get("http://engine/health").status_code == 200
        except httpx.HTTPError:
            return False

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _end_children(self) -> None:
        """All are told to stop at once; then each has its grace."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        for process in running:
            processes.stop_child(process, grace_seconds=GRACE_SECONDS)
        for record in self._records.glob("*.process.json"):
            record.unlink()


def serve(settings: Settings, settings_file: Path | None) -> int:
    """Runs the whole server in the foreground. Returns the exit code."""

    def talk(message: str) -> None:
        print(message, file=sys.stderr, flush=True)  # noqa: T201

    try:
        Supervisor(settings, settings_file, talk).run()
    except LocalLLMError as error:
        talk(f"error: {error.message}")
        if error.hint:
            talk(f"  try: {error.hint}")
        return 1
    return 0


def _tail(log: Path) -> list[str]:
    if not log.exists():
        return []
    with log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        return [line for line in handle.read().decode(errors="replace").splitlines() if line.strip()]
