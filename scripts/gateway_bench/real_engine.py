"""The real engine, direct and through the whole server, with the same questions: tokens a second at 8 at once."""

import http.client
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from gateway_bench import load
from gateway_bench.request import QUESTION, chat_request
from gateway_bench.world import WayUnavailableError, clean_environment
from local_llm import processes
from local_llm.fileio import read_json
from local_llm.keys import KeyStore
from local_llm.settings import Settings, load_settings
from local_llm.state import open_state

CLIENTS = 8
ANSWERS = 32  # in each measurement
TOKENS = 64
START_SECONDS = 900
GRACE_SECONDS = 30
POLL_SECONDS = 0.5

Figures = dict[str, Any]


def compare(home: Path, work: Path, rounds: int) -> Figures:
    """Raises: WayUnavailableError if the server does not come up; LoadError if answers fail."""
    work.mkdir(parents=True, exist_ok=True)
    settings = load_settings(environment={"LOCAL_LLM_HOME": str(home.expanduser().resolve())})
    environment = clean_environment(LOCAL_LLM_HOME=str(settings.home))
    with (work / "server.log").open("wb") as log:
        server = processes.start_child(
            "serving", [sys.executable, "-m", "serving", "--port", "0"], environment=environment, log=log,
            records=work / "run",
        )  # fmt: skip
    try:
        address = _ready(settings, server, work / "server.log")
        with _key(settings) as secret:
            return _compared(settings, address, secret, rounds)
    finally:
        processes.stop_child(server, grace_seconds=GRACE_SECONDS)
        processes.end_leftovers(work / "run")


def _compared(settings: Settings, address: load.Address, secret: str, rounds: int) -> Figures:
    ways: dict[str, load.Address] = {"direct": settings.place.socket("engine"), "ours": address}
    number = count()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, rounds):  # one to warm up
        first = next(number) * ANSWERS
        for name in sorted(ways, reverse=bool(turn % 2)):
            speed = _tokens_per_second(ways[name], settings.engine.model, secret, f"{name} {first}")
            if turn >= 0:
                found[name].append(round(speed, 2))
    ratios = [ours / direct for ours, direct in zip(found["ours"], found["direct"], strict=True)]
    return {
        "model": settings.engine.model,
        "clients": CLIENTS,
        "tokens_per_answer": TOKENS,
        "tokens_per_second": found,
        "ratio": round(statistics.median(ratios), 4),
    }


def _tokens_per_second(address: load.Address, model: str, secret: str, mark: str) -> float:
    """Answers of the same length to questions that no cache knows."""
    asked = [
        chat_request(
            model, secret, stream=True, max_tokens=TOKENS, temperature=0, ignore_eos=True,
            messages=[{"role": "user", "content": f"({mark}, {n}) {QUESTION}"}],
        )
        for n in range(ANSWERS)
    ]  # fmt: skip
    seen = load.once(address, iter(asked), CLIENTS)
    if seen.errors:
        raise load.LoadError(f"{seen.errors} errors, the first: {seen.first_error}")
    return ANSWERS * TOKENS / seen.seconds


@contextmanager
def _key(settings: Settings) -> Iterator[str]:
    """A key for the time of the block. Where none was ever created it stays so: the home would ask for keys from
    then on."""
    state = open_state(settings.place)
    try:
        keys, project = KeyStore(state), state.local_project_id()
        if not keys.any_created():
            yield "none"
            return
        made = keys.create(project, "bench_gateway")
        try:
            yield made.secret
        finally:
            keys.revoke(project, made.key.id)
    finally:
        state.close()


def _ready(settings: Settings, server: Any, log: Path) -> load.Address:
    deadline = time.monotonic() + START_SECONDS
    file = settings.place.run / "server.json"
    while time.monotonic() < deadline and server.poll() is None:
        try:
            host, _, port = read_json(file)["url"].removeprefix("http://").rpartition(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=5)
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return host, int(port)
        except (OSError, KeyError, json.JSONDecodeError, http.client.HTTPException):
            pass
        time.sleep(POLL_SECONDS)
    raise WayUnavailableError(f"the server did not come up: {log.read_text(errors='replace')[-600:]}")
