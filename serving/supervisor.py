"""The parent: starts gateway, engine, index server and trainer, and keeps them running.

It holds the listening socket and does nothing else, so that it has no reason to die. A child that ends is
started again after a growing pause. Leftovers of a killed parent are ended before anything is started.
With gpu.sharing = "stop" the engine is stopped while a job trains, and that is no ending of its own.
"""

import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from local_llm import device, offline, processes
from local_llm.adapters import AdapterRegistry, Published
from local_llm.declared_profiles import check_declared
from local_llm.errors import LocalLLMError, UnavailableError
from local_llm.fileio import write_json
from local_llm.keys import KeyStore
from local_llm.locks import exclusive_lock
from local_llm.models import Model, ModelStore
from local_llm.settings import Settings
from local_llm.state import open_state
from serving import engine, engine_layout, outlook, preflight
from serving.children import Child, Children, Talk
from serving.health_watch import HealthWatch, Patience
from serving.log_rotation import LogRotation
from serving.remote_engines import remote_engines
from serving.tls import certificate_of
from training import trainer

ENGINE = "engine"
POLL_SECONDS = 0.2
# A job that is stopped with its trainer may finish a step and write a checkpoint.
TRAINER_GRACE_SECONDS = trainer.GRACE_SECONDS + 5

# What a gateway needs to end beside the time that its running answers get.
GATEWAY_MORE_SECONDS = 5

Plan = Callable[[Settings, Path | None, Model, socket.socket], list[Child]]


def plan(settings: Settings, settings_file: Path | None, model: Model, listener: socket.socket) -> list[Child]:
    """The processes of a server: as many gateways as the settings say, no engine where engines are elsewhere."""
    place = settings.place
    ours = offline.environment()
    serving = {**ours, **device.engine_environment(settings)}
    options = ["--settings", str(settings_file)] if settings_file else []
    descriptor, server = listener.fileno(), settings.server

    def child(name: str, *line: str, environment: Mapping[str, str] = ours, **rest: Any) -> Child:
        return Child(name, (sys.executable, "-m", *line, *options), environment, place.logs / f"{name}.log", **rest)

    gateways = [
        child(
            f"gateway-{number}" if number else "gateway",
            *("serving.gateway", "--fd", str(descriptor), "--number", str(number)),
            pass_fds=(descriptor,),
            grace_seconds=server.drain_seconds + server.drain_notice_seconds + GATEWAY_MORE_SECONDS,
        )
        for number in range(server.processes)
    ]
    return [
        *gateways,
        *([] if settings.engine.urls else [_engine(settings, model)]),
        child("index", "index", environment=serving),
        child("trainer", "training", grace_seconds=TRAINER_GRACE_SECONDS),
    ]


def _engine(settings: Settings, model: Model) -> Child:
    place = settings.place
    path = place.socket("engine")

    def command() -> list[str]:
        """Anew at each start: adapters of a larger rank may have been published since the last one."""
        return engine.command(settings, model, path, _published(settings, model))

    return Child(
        ENGINE,
        command,
        engine.environment(settings),
        place.logs / "engine.log",
        socket=path,
        health=HealthWatch(path, Patience.of(settings), model.name),
        turn=device.EngineTurn(place) if settings.gpu.sharing == "stop" else None,
    )


def _published(settings: Settings, model: Model) -> Published:
    state = open_state(settings.place)
    try:
        return AdapterRegistry(settings, state).published(model.manifest.sha256)
    finally:
        state.close()


class Supervisor:
    def __init__(self, settings: Settings, settings_file: Path | None, talk: Talk, plan: Plan = plan):
        self._settings = settings
        self._settings_file = settings_file
        self._talk = talk
        self._plan = plan
        self._records = settings.place.run / "serving"
        self._stopping = False
        self._outlook = outlook.Outlook()  # as told last
        self._ready = False  # as told last
        self._was_ready = False  # at least once

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
            self._tell_what_runs_elsewhere(model)
            stack.callback((home.run / "server.json").unlink, missing_ok=True)
            signal.signal(signal.SIGTERM, self._stop)
            signal.signal(signal.SIGINT, self._stop)
            planned = self._plan(self._settings, self._settings_file, model, listener)
            children = Children(planned, self._records, self._talk, LogRotation(self._settings.logs, self._talk))
            try:
                self._watch(children)
            finally:
                listener.close()  # with the gateways' own, so that nobody new waits for an answer
                children.end()
        self._talk("stopped")

    def _check(self) -> Model:
        certificate_of(self._settings.server)
        device.require_sharing(self._settings)
        engine.require_sound(self._settings.engine)
        remote_engines(self._settings)
        check_declared(self._settings.profiles)
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
        if self._settings.engine.urls:
            return model
        engine_layout.require_layout(self._settings.engine, model)
        if device.training_job(self._settings) is None:  # else what is free now is not what the engine will find
            engine.require_memory(self._settings.engine, model)
        return model

    def _end_leftovers(self) -> None:
        for name in processes.end_leftovers(self._records):
            self._talk(f"ended a leftover {name} process of an earlier run")

    def _announce(self, listener: socket.socket) -> None:
        url = preflight.url_of(listener, tls=self._settings.server.tls_certificate is not None)
        write_json(self._settings.place.run / "server.json", {"url": url})
        urls, logs = self._settings.engine.urls, self._settings.place.logs
        where = (
            f"the engines are elsewhere (engine.urls: {len(urls)})"
            if urls
            else f"starting the engine (its log: {logs / 'engine.log'})"
        )
        self._talk(f"listening on {url}; {where}")

    def _tell_what_runs_elsewhere(self, model: Model) -> None:
        settings = self._settings
        if settings.engine.urls or settings.engine.ray:
            return
        line = engine.command(settings, model, settings.place.socket("engine"), _published(settings, model))
        for number, host in enumerate(settings.engine.hosts[1:], start=1):
            self._talk(f"on {host} run: {engine_layout.line_elsewhere(line, settings.engine, number)}")

    def _watch(self, children: Children) -> None:
        self._outlook = outlook.read(self._settings.place)
        engine = children.find(ENGINE)
        waited_since = time.monotonic()
        while not self._stopping:
            for ended in children.look():
                self._give_up_if_hopeless(ended)
            if engine is not None:
                if engine.held_off:
                    waited_since = time.monotonic()
                self._look_at_engine(engine, time.monotonic() - waited_since)
            time.sleep(POLL_SECONDS)

    def _look_at_engine(self, engine: Child, waited_seconds: float) -> None:
        if engine.ready and not self._ready:
            self._was_ready = True
            self._talk("ready")
        self._ready = engine.ready
        if not self._was_ready and waited_seconds > self._settings.engine.start_timeout_seconds:
            raise UnavailableError(
                f"the engine was not up after {waited_seconds:.0f} s",
                hint=f"see {self._settings.place.logs / 'engine.log'}, or raise engine.start_timeout_seconds",
            )
        self._tell_outlook(engine)

    def _tell_outlook(self, engine: Child) -> None:
        """Clients who come meanwhile are told when to come back."""
        took = self._outlook.start_took_seconds
        up_at = None
        if engine.ready and engine.health is not None:
            took = round(engine.health.start_took_seconds, 1)
        elif took is not None and not engine.held_off:
            up_at = round(took + (engine.start_at if engine.process is None else engine.started_at), 1)
        if (now := outlook.Outlook(up_at, took)) != self._outlook:
            self._outlook = now
            with suppress(OSError):  # a full disk is no reason to end
                outlook.write(self._settings.place, now)

    def _give_up_if_hopeless(self, child: Child) -> None:
        """An engine that never came up will not: its settings or its model are wrong."""
        if child.name == ENGINE and not self._was_ready and len(child.endings) >= 2:
            raise UnavailableError(
                f"the engine does not start: {child.last_words()}",
                hint=f"see {child.log}, and the [engine] settings in docs/settings.md",
            )

    def _stop(self, *_: object) -> None:
        self._stopping = True


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
