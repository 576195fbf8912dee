"""How an engine is reached: over its Unix socket here, or by a URL elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_llm.errors import UnavailableError
from local_llm.home import Home
from serving import outlook
from serving.engine_http import Address
from serving.remote_engines import RemoteEngine

# Ours keeps its connections for a minute (engine.py); vLLM closes idle ones after 5 s unless told otherwise.
LOCAL_KEEP_ALIVE_SECONDS = 15.0
REMOTE_KEEP_ALIVE_SECONDS = 4.0


@dataclass(frozen=True)
class Whereabouts:
    """How an engine is reached, and what is said of it when it is not."""

    address: Address
    timeout_seconds: float  # for a whole answer
    adapter_path: Callable[[Path], str]  # what the engine calls a folder of ours
    job: Callable[[], str | None]  # for which, as "job ftjob-…", it is stopped; None: for none
    retry_after_seconds: Callable[[], int]
    name: str = "the engine"
    elsewhere: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


def local(home: Home, timeout_seconds: float, training_job: Callable[[], str | None]) -> Whereabouts:
    """The engine that the supervisor starts."""
    return Whereabouts(
        address=Address(LOCAL_KEEP_ALIVE_SECONDS, home.socket("engine")),
        timeout_seconds=timeout_seconds,
        adapter_path=str,
        job=training_job,
        retry_after_seconds=lambda: outlook.retry_after_seconds(home),
    )


def remote(engine: RemoteEngine, timeout_seconds: float) -> Whereabouts:
    return Whereabouts(
        address=Address.of_url(engine.url, engine.tls, REMOTE_KEEP_ALIVE_SECONDS),
        timeout_seconds=timeout_seconds,
        adapter_path=lambda folder: f"{engine.adapters_path}/{folder.name}",
        job=lambda: None,
        retry_after_seconds=lambda: UnavailableError.retry_after_seconds,
        name=f"engine {engine.number} of engine.urls",
        elsewhere=True,
        headers=engine.headers,
    )
