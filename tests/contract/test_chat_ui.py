"""A chat UI of others on our server: it starts without a network, lists our models, and chats with them.

Open WebUI, because it is the one that teams put before servers like this one. Its environment is made by
scripts/install_clients.
"""

import os
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .conftest import REPOSITORY, QuickstartRun, RunningServer

pytestmark = pytest.mark.engine

PROGRAM = REPOSITORY / ".venv-clients" / "bin" / "open-webui"
START_SECONDS = 120
# What only a test needs: one user who need not log in, and a folder of its own.
FOR_THE_TEST = {"WEBUI_AUTH": "False", "WEBUI_SECRET_KEY": "s" * 32, "USE_SLIM_DOCKER": "true"}


def variables(server: RunningServer) -> dict[str, str]:
    """As docs/clients.md has them, with this server's address."""
    page = (REPOSITORY / "docs" / "clients.md").read_text()
    (block,) = re.findall(r"```bash\n(OPENAI_API_BASE_URL.*?)```", page, flags=re.DOTALL)
    words = shlex.split(block.replace("\\\n", " "))
    told = dict(word.split("=", 1) for word in words[: words.index("open-webui")])
    return {**told, "OPENAI_API_BASE_URL": f"{server.url}/v1"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def chat_ui(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Its API, as its page uses it."""
    if not PROGRAM.exists():
        pytest.skip("no Open WebUI here: scripts/install_clients")
    folder, port = tmp_path_factory.mktemp("chat-ui"), free_port()
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [PROGRAM, "serve", "--host", "127.0.0.1", "--port", str(port)], cwd=folder, stdout=out, stderr=out,
            env={**os.environ, **variables(server), **FOR_THE_TEST, "DATA_DIR": str(folder)},
        )  # fmt: skip
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        try:
            wait_until_well(client, process, log)
            user = client.post("/api/v1/auths/signin", json={"email": "", "password": ""}).json()
            client.headers["authorization"] = f"Bearer {user['token']}"
            yield client
        finally:
            process.terminate()
            process.wait(30)


def wait_until_well(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise AssertionError(log.read_text()[-4000:])


def test_it_serves_its_page(chat_ui: httpx.Client) -> None:
    page = chat_ui.get("/")
    assert page.status_code == 200
    assert "<title>Open WebUI</title>" in page.text


def test_it_lists_base_adapters_and_profiles(chat_ui: httpx.Client, quickstart: QuickstartRun) -> None:
    names = {model["id"] for model in chat_ui.get("/api/models").json()["data"]}
    assert {"SmolLM2-135M-Instruct", "quillon-rag", quickstart.result["fine_tuned_model"]} <= names


def test_it_chats_with_a_profile(chat_ui: httpx.Client) -> None:
    question = {"role": "user", "content": "How long must I hold trigger and side key to factory reset a scanner?"}
    body = {"model": "quillon-rag", "messages": [question], "temperature": 0, "max_tokens": 60}
    answer = chat_ui.post("/api/chat/completions", json={**body, "stream": False}).json()
    assert answer["choices"][0]["message"]["content"]
    with chat_ui.stream("POST", "/api/chat/completions", json={**body, "stream": True}) as stream:
        lines = [line for line in stream.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
