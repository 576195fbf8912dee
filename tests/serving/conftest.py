"""The real gateway with no engine and no index server behind it."""

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from starlette.testclient import TestClient

from local_llm.models import ModelStore
from local_llm.settings import Settings
from local_llm.state import State
from serving.gateway import create_app

from ..handmade_adapters import write_base

BASE = "SmolLM2-135M-Instruct"


@pytest.fixture
def gateway(settings: Settings, state: State, tmp_path: Path) -> Iterator[TestClient]:
    ModelStore(settings.place.models).import_folder(write_base(tmp_path / "model"), name=BASE)
    with TestClient(create_app(settings), "http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(gateway: TestClient) -> openai.OpenAI:
    """The real client, whose requests go to the gateway without a socket."""
    return openai.OpenAI(api_key="none", base_url="http://127.0.0.1:8000/v1", http_client=gateway, max_retries=0)


def chat_lines(count: int = 10) -> bytes:
    """A training file of so many conversations."""
    lines = [
        {"messages": [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": f"Aye {n}."}]}
        for n in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def preference_lines(count: int = 10) -> bytes:
    """A file for dpo of so many preferences."""
    lines = [
        {
            "input": {"messages": [{"role": "user", "content": f"Question {n}?"}]},
            "preferred_output": [{"role": "assistant", "content": "Aye."}],
            "non_preferred_output": [{"role": "assistant", "content": "Yes."}],
        }
        for n in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
