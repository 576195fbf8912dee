"""Profiles through the API, and those that the settings declare."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from local_llm.adapters import AdapterRegistry, AdapterRun
from local_llm.identifiers import now
from local_llm.models import ModelStore
from local_llm.state import Collection

from ..handmade_adapters import write_adapter
from .conftest import BASE
from .vector_store_world import World, running_gateway

TUNED = f"ft:{BASE}:local:support:abcd1234"
DECLARED = {
    "profiles.help": {"strategy": "rag", "collection": "kb", "k": 3},
    "profiles.plain": {"strategy": "base"},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with running_gateway(folder, **DECLARED) as made:
        base = ModelStore(made.settings.place.models).get(BASE)
        run = AdapterRun(data_sha256="d", settings={}, metrics={}, versions={})
        AdapterRegistry(made.settings, made.state).publish(
            write_adapter(folder / "adapter"), base=base, name=TUNED, project_id=made.admin.project_id, run=run
        )
        yield made


@pytest.fixture
def gateway(world: World) -> TestClient:
    world.gateway.headers["authorization"] = f"Bearer {world.secrets['admin']}"
    return world.gateway


def make_collection(world: World, name: str) -> None:
    with world.state.session() as session:
        session.add(
            Collection(
                id=f"vs_{name}", project_id=world.admin.project_id, name=name, encoder="e", encoder_fingerprint="f",
                created_at=now(),
            )
        )  # fmt: skip


def post(gateway: TestClient, **body: Any) -> dict[str, Any]:
    answer = gateway.post("/v1/profiles", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_all_four_strategies_are_set_with_their_options(world: World, gateway: TestClient) -> None:
    make_collection(world, "docs")
    wanted: list[dict[str, Any]] = [
        {"name": "one", "strategy": "base", "prompt": "Be brief."},
        {"name": "two", "strategy": "fine_tuned", "model": TUNED},
        {"name": "three", "strategy": "rag", "collection": "docs", "answer_only_from_context": False},
        {"name": "four", "strategy": "hybrid", "model": TUNED, "collection": "docs", "k": 7, "rewrite": False},
    ]
    made = [post(gateway, **one) for one in wanted]
    listed = {one["id"]: one for one in gateway.get("/v1/profiles").json()["data"]}
    for asked, got in zip(wanted, made, strict=True):
        assert got == listed[asked["name"]]
        for option, value in asked.items():
            assert got[option] == ("vs_docs" if option == "collection" else value)
        assert got["from_settings"] is False
    assert (made[2]["rewrite"], made[3]["answer_only_from_context"]) == (None, True)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"rewrite": "sometimes"}, "rewrite"),
        ({"answer_only_from_context": 7}, "answer_only_from_context"),
        ({"from_settings": True}, "from_settings"),
        ({"rewrite": True}, "retrieves nothing"),
        ({"refusal": "No."}, "retrieves nothing"),
        ({"strategy": "rag", "collection": "docs", "refusal": "No.\nNever."}, "one line"),
        ({"strategy": "rag", "collection": "docs", "refusal": " "}, "one line"),
    ],
)
def test_what_cannot_be_right_is_told(gateway: TestClient, changed: dict[str, Any], told: str) -> None:
    answer = gateway.post("/v1/profiles", json={"name": "x", "strategy": "base", **changed})
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]


def test_those_of_the_settings_are_marked_and_stay(gateway: TestClient) -> None:
    listed = {one["id"]: one["from_settings"] for one in gateway.get("/v1/profiles").json()["data"]}
    assert listed["plain"] is True
    for answer in (
        gateway.delete("/v1/profiles/plain"),
        gateway.post("/v1/profiles", json={"name": "plain", "strategy": "base", "prompt": "x"}),
    ):
        assert answer.status_code == 409
        assert "[profiles.plain]" in answer.json()["error"]["message"]


def test_one_whose_collection_is_to_come_says_so_until_it_is_there(world: World, gateway: TestClient) -> None:
    client = world.client()
    chat: Any = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.NotFoundError, match="`help` cannot be used: there is no collection 'kb'"):
        client.chat.completions.create(model="help", messages=chat)
    make_collection(world, "kb")
    with pytest.raises(openai.InternalServerError, match="index server"):  # there is none here
        client.chat.completions.create(model="help", messages=chat)
    listed = {one["id"]: one for one in gateway.get("/v1/profiles").json()["data"]}
    assert (listed["help"]["collection"], listed["help"]["k"], listed["help"]["from_settings"]) == (
        "vs_kb",
        3,
        True,
    )
