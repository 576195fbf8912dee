"""When the engine may be expected back: the supervisor knows, and the gateway tells its clients.

A file in run/, because they are two processes and the gateway must not wait for the other. It is read only when a
request has to be turned away.
"""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from local_llm.errors import UnavailableError
from local_llm.fileio import read_json, write_json
from local_llm.home import Home

# The openai client waits as long as it is told, up to two minutes; a person who watches it does not.
LONGEST_RETRY_SECONDS = 60


@dataclass(frozen=True)
class Outlook:
    """`up_at` by CLOCK_MONOTONIC, which all processes of a machine share; None: it is up, or nobody knows."""

    up_at: float | None = None
    start_took_seconds: float | None = None  # the last time


def read(home: Home) -> Outlook:
    try:
        return Outlook(**read_json(_file(home)))
    except (OSError, ValueError, TypeError):
        return Outlook()


def write(home: Home, outlook: Outlook) -> None:
    write_json(_file(home), asdict(outlook))


def retry_after_seconds(home: Home) -> int:
    """What clients are told when the engine is down."""
    up_at = read(home).up_at
    if up_at is None:
        return UnavailableError.retry_after_seconds
    return min(
        max(math.ceil(up_at - time.monotonic()), UnavailableError.retry_after_seconds), LONGEST_RETRY_SECONDS
    )


def _file(home: Home) -> Path:
    return home.run / "engine.json"
