"""How an engine is reached: over its Unix socket here, or by a URL elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from local_llm.errors import UnavailableError
from local_llm.home import Home
from serving import outlook
from serving.remote_engines import RemoteEngine

# A machine that is there accepts a connection within milliseconds, also in a network of several rooms.
CONNECT_TIMEOUT_SECONDS = 3.0
# vLLM closes idle connections after 5 s unless told otherwise: ours are closed before, for a request that meets a
# closing connection fails.
REMOTE_KEEP_ALIVE_SECONDS = 4.0


@dataclass(frozen=True)
class Whereabouts:
    """How an engine is reached, and what is said of it when it is not."""

    base_url: str
    connector: aiohttp.BaseConnector
    timeout: aiohttp.ClientTimeout
    adapter_path: Callable[[Path], str]  # what the engine calls a folder of ours
    job: Callable[[], str | None]  # for which, as "job ftjob-…", it is stopped; None: for none
    retry_after_seconds: Callable[[], int]
    name: str = "the engine"
    elsewhere: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    ssl: Any = True  # what aiohttp takes


def local(home: Home, timeout_seconds: float, training_job: Callable[[], str | None]) -> Whereabouts:
    """The engine that the supervisor starts. Needs a running event loop, as `remote`."""
    return Whereabouts(
        base_url="http://engine",
        connector=aiohttp.UnixConnector(path=str(home.socket("engine")), limit=0),
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        adapter_path=str,
        job=training_job,
        retry_after_seconds=lambda: outlook.retry_after_seconds(home),
    )


def remote(engine: RemoteEngine, timeout_seconds: float) -> Whereabouts:
    return Whereabouts(
        base_url=engine.url,
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=REMOTE_KEEP_ALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=CONNECT_TIMEOUT_SECONDS),
        adapter_path=lambda folder: f"{engine.adapters_path}/{folder.name}",
        job=lambda: None,
        retry_after_seconds=lambda: UnavailableError.retry_after_seconds,
        name=f"engine {engine.number} of engine.urls",
        elsewhere=True,
        headers=engine.headers,
        ssl=engine.tls or True,
    )
