"""`python -m tests.serving.small_server`: the real supervisor with the real gateway, and a small engine."""

import socket
import sys
from dataclasses import replace
from pathlib import Path

from local_llm.models import Model
from local_llm.settings import Settings, load_settings
from serving import supervisor
from serving.children import Child

ENGINE = Path(__file__).parent / "small_engine.py"


def plan(settings: Settings, settings_file: Path | None, model: Model, listener: socket.socket) -> list[Child]:
    planned = supervisor.plan(settings, settings_file, model, listener)
    gateways = [child for child in planned if child.name.startswith("gateway")]
    engines = [child for child in planned if child.name == supervisor.ENGINE]
    return [*gateways, *(replace(one, command=[sys.executable, str(ENGINE), str(one.socket)]) for one in engines)]


if __name__ == "__main__":
    supervisor.Supervisor(load_settings(), None, print, plan).run()
