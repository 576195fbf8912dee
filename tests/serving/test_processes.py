"""Several gateway processes behind one address, under the real supervisor."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from local_llm.models import ModelStore
from local_llm.settings import Settings

from .real_gateway import CHAT, wait_for

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def home(settings: Settings, tmp_path: Path) -> Path:
    store = ModelStore(settings.place.ensure().models)
    for name, file, value in (
        ("SmolLM2-135M-Instruct", "config.json", {"architectures": ["LlamaForCausalLM"]}),
        ("all-MiniLM-L6-v2", "modules.json", []),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / file).write_text(json.dumps(value))
        store.import_folder(folder, name=name)
    return settings.home


@pytest.fixture
def server(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ, "LOCAL_LLM_HOME": str(home), "LOCAL_LLM_SERVER__PORT": "0",
        "LOCAL_LLM_SERVER__PROCESSES": "3", "LOCAL_LLM_ENGINE__KV_CACHE_GIB": "1",
    }  # fmt: skip
    line = [sys.executable, "-m", "tests.serving.small_server"]
    process = subprocess.Popen(line, cwd=REPOSITORY, env=environment)
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
def test_several_gateways_serve_one_address_and_stop_together(home: Path, server: subprocess.Popen[bytes]) -> None:
    def url() -> str:
        return str(json.loads((home / "run" / "server.json").read_text())["url"])

    def processes() -> set[str]:
        try:
            return set(re.findall(r'process="(\d)"', httpx.get(f"{url()}/metrics", timeout=5).text))
        except (OSError, httpx.HTTPError):
            return set()

    wait_for(lambda: processes() == {"0", "1", "2"}, 60)
    wait_for(lambda: httpx.post(f"{url()}/v1/chat/completions", json=CHAT, timeout=5).status_code == 200, 60)
    address = url()
    server.terminate()
    began = time.monotonic()
    assert server.wait(60) == 0
    assert time.monotonic() - began < 20
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")
