"""What the gateway answers by itself: it stays up, and speaks in one envelope, whatever is down behind it."""

import json

import pytest
from starlette.testclient import TestClient

from local_llm.keys import KeyStore
from local_llm.permissions import Caller
from local_llm.profiles import Profile, ProfileStore
from local_llm.state import Collection, Project, State

from .conftest import BASE

CHAT = {"model": BASE, "messages": [{"role": "user", "content": "Hello"}]}


def code_of(answer) -> str | None:
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return answer.json()["error"]["code"]


def test_with_the_engine_down_a_chat_gets_503_and_when_to_come_back(gateway: TestClient) -> None:
    answer = gateway.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, code_of(answer)) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0


def test_with_everything_down_it_is_healthy_but_not_ready(gateway: TestClient) -> None:
    assert gateway.get("/health").status_code == 200
    ready = gateway.get("/ready")
    assert ready.status_code == 503
    assert ready.json() == {"status": "starting", "engine": "starting", "index": "starting"}
    assert gateway.get("/v1/models").json()["data"][0]["id"] == BASE


def test_with_the_index_server_down_a_profile_that_retrieves_gets_503(
    gateway: TestClient, state: State, admin: Caller
) -> None:
    with state.session() as session:
        session.add(
            Collection(
                id="vs_1",
                project_id=admin.project_id,
                name="kb",
                encoder="e",
                encoder_fingerprint="f",
                created_at=0,
            )
        )
    ProfileStore(state).set(admin, Profile("help", "rag", collection="kb"))
    answer = gateway.post("/v1/chat/completions", json={**CHAT, "model": "help"})
    assert (answer.status_code, code_of(answer)) == (503, "unavailable")
    assert "index server" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"messages": CHAT["messages"]}, 400, "model"),
        ({"model": 3, "messages": CHAT["messages"]}, 400, "model"),
        ({"model": "nope", "messages": CHAT["messages"]}, 404, "model"),
        ({"model": BASE}, 400, "messages"),
        ({"model": BASE, "messages": []}, 400, "messages"),
        ({"model": BASE, "messages": "hello"}, 400, "messages"),
        ({"model": BASE, "messages": [{"role": "user", "content": 3}]}, 400, "messages[0].content"),
        ({**CHAT, "messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "messages[0].content"),
        ({**CHAT, "stream": "false"}, 400, "stream"),
    ],
)
def test_a_wrong_body_is_told_by_field(gateway: TestClient, body: dict, status: int, param: str) -> None:
    answer = gateway.post("/v1/chat/completions", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param


def test_what_is_no_json_object_is_refused(gateway: TestClient) -> None:
    for data in (b"", b"{", b"[1]", b'{"model": "a", "model": "b"}', b"\xff\xfe"):
        answer = gateway.post("/v1/chat/completions", content=data)
        assert answer.status_code == 400
        code_of(answer)


def test_a_body_over_the_limit_is_refused(gateway: TestClient) -> None:
    answer = gateway.post("/v1/chat/completions", content=b" " * (16 * 1024**2 + 1))
    assert (answer.status_code, code_of(answer)) == (413, "body_too_large")


def test_unknown_paths_and_methods_answer_in_the_envelope(gateway: TestClient) -> None:
    assert (gateway.get("/v1/nothing").status_code, code_of(gateway.get("/v1/nothing"))) == (404, "not_found")
    assert gateway.put("/v1/models").status_code == 405
    code_of(gateway.put("/v1/models"))


def test_from_the_first_key_on_every_request_needs_one(gateway: TestClient, state: State, admin: Caller) -> None:
    assert gateway.get("/v1/models").status_code == 200
    secret = KeyStore(state).create(admin.project_id, "ana").secret
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": secret}, {"authorization": "Basic x"}):
        answer = gateway.get("/v1/models", headers=headers)
        assert (answer.status_code, code_of(answer)) == (401, "invalid_api_key")
    assert gateway.get("/v1/models", headers={"authorization": f"Bearer {secret}"}).status_code == 200
    assert gateway.get("/health").status_code == 200


def test_another_projects_rows_are_not_found(gateway: TestClient, state: State, admin: Caller) -> None:
    upload = gateway.post("/v1/files", files={"file": ("a.jsonl", b"{}")}, data={"purpose": "batch"}).json()
    with state.session() as session:
        session.add(Project(id="proj_b", name="b", created_at=0, archived_at=None))
        session.flush()
    other = {"authorization": f"Bearer {KeyStore(state).create('proj_b', 'bob', role='admin').secret}"}
    for path in (f"/v1/files/{upload['id']}", f"/v1/files/{upload['id']}/content"):
        assert gateway.get(path, headers=other).status_code == 404
    assert gateway.get("/v1/files", headers=other).json()["data"] == []
    assert gateway.delete(f"/v1/files/{upload['id']}", headers=other).status_code == 404
    job = {"training_file": upload["id"], "model": BASE}
    assert gateway.post("/v1/fine_tuning/jobs", json=job, headers=other).status_code in (400, 404)


def test_a_page_in_a_browser_gets_nothing_from_a_box_without_keys(gateway: TestClient) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}):
        assert gateway.get("/v1/files", headers=headers).status_code == 403
        assert gateway.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 403
    assert gateway.get("/v1/files", headers={"origin": "http://localhost:3000"}).status_code == 200


def test_who_asks_is_known_before_the_body_is_read(gateway: TestClient, state: State, admin: Caller) -> None:
    KeyStore(state).create(admin.project_id, "ana")
    for path in ("/v1/files", "/v1/profiles", "/v1/chat/completions", "/v1/fine_tuning/jobs"):
        assert gateway.post(path, content=b"{ not read at all").status_code == 401


def test_a_profile_may_bear_a_hosted_name_but_not_base(gateway: TestClient, state: State, admin: Caller) -> None:
    assert gateway.post("/v1/profiles", json={"name": "gpt-4o-mini", "strategy": "base"}).status_code == 200
    assert gateway.post("/v1/profiles", json={"name": "base", "strategy": "base"}).status_code == 400
    assert "gpt-4o-mini" in [model["id"] for model in gateway.get("/v1/models").json()["data"]]


def test_profiles_are_set_listed_and_removed(gateway: TestClient) -> None:
    made = gateway.post("/v1/profiles", json={"name": "plain", "strategy": "base", "prompt": "Be brief."})
    assert made.json()["strategy"] == "base"
    assert [row["id"] for row in gateway.get("/v1/profiles").json()["data"]] == ["plain"]
    assert "plain" in json.dumps(gateway.get("/v1/models").json())
    assert gateway.delete("/v1/profiles/plain").status_code == 200
    assert gateway.delete("/v1/profiles/plain").status_code == 404
    assert gateway.post("/v1/profiles", json={"name": "x", "strategy": "rag"}).status_code == 400
    assert gateway.post("/v1/profiles", json={"name": "x", "strategy": "base", "colour": 1}).status_code == 400
