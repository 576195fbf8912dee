"""The gateway while the database server is away."""

import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from local_llm.settings import Settings, load_settings
from tests.postgresql import Cluster


@pytest.fixture
def settings(postgresql: Cluster, tmp_path: Path) -> Settings:
    environment = postgresql.environment(postgresql.create_state())
    return load_settings(environment={"LOCAL_LLM_HOME": str(tmp_path / "home"), **environment})


def test_requests_are_told_to_come_back_and_are_answered_then(gateway: TestClient, postgresql: Cluster) -> None:
    assert gateway.get("/v1/models").status_code == 200
    postgresql.stop("immediate")
    try:
        chat = {"model": "base", "messages": [{"role": "user", "content": "Hello"}]}
        for answer in (gateway.get("/v1/models"), gateway.post("/v1/chat/completions", json=chat)):
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "state_unavailable"
            assert int(answer.headers["retry-after"]) >= 1
            assert str(postgresql.folder) not in answer.text
        assert gateway.get("/health").status_code == 200
    finally:
        postgresql.start()
    end = time.monotonic() + 60
    while gateway.get("/v1/models").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.1)
