"""The real gateway with no engine and no index server behind it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from local_llm.models import ModelStore
from local_llm.settings import Settings
from local_llm.state import State
from serving.gateway import create_app

BASE = "SmolLM2-135M-Instruct"


@pytest.fixture
def gateway(settings: Settings, state: State, tmp_path: Path) -> Iterator[TestClient]:
    source = tmp_path / "model"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    ModelStore(settings.place.models).import_folder(source, name=BASE)
    with TestClient(create_app(settings), "http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client
