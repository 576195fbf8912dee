"""Others' clients, as docs/clients.md tells their users to set them up."""

import re
import subprocess
import sys

import pytest

from .conftest import REPOSITORY, RunningServer, environment

pytestmark = pytest.mark.engine

PAGE = (REPOSITORY / "docs" / "clients.md").read_text()


def said_by(server: RunningServer, title: str) -> str:
    """What the snippet of this section printed."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    (snippet,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    variables = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "none"}
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=REPOSITORY, env={**environment(server.home), **variables},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_openai_asks_and_streams(server: RunningServer) -> None:
    assert said_by(server, "openai").count("Paris") >= 2


def test_langchain_chats_calls_tools_and_embeds(server: RunningServer) -> None:
    said = said_by(server, "LangChain")
    assert "Paris" in said
    assert "city='Paris' is_capital=" in said
    assert "'name': 'City', 'args': {'city': 'Paris', 'is_capital':" in said
    assert said.splitlines()[-1] == "384 2"


def test_llama_index_chats_with_a_profile_and_embeds(server: RunningServer) -> None:
    said = said_by(server, "LlamaIndex")
    assert re.search(r"\[\d\]", said), "a profile's answer is cited"
    assert said.splitlines()[-1] == "384"


def test_litellm_asks_streams_embeds_and_knows_our_errors(server: RunningServer) -> None:
    said = said_by(server, "LiteLLM")
    assert said.count("Paris") >= 2
    assert "384\n" in said
    assert said.splitlines()[-1] == "too long"
