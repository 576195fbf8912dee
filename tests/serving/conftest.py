"""The real gateway with no engine and no index server behind it."""

from collections.abc import Iterator
from pathlib import Path

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
