"""What lies outside a key's project or scope is as if it were not there, on every route that names something.

The routes are those of the OpenAPI document: a new one is asked here without being added. One whose parameters
nobody knows, or that wants a body, fails until it says so.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from local_llm.audit import AuditQuery

from .conftest import BASE
from .tenancy_world import BATTERY, ORGANIZATION, QUESTION, TUNED, Box, box_of_everything

CHAT = {"messages": [{"role": "user", "content": QUESTION}]}
OUTSIDERS = ("stranger", "scoped")

# The bodies of those routes that want one.
BODIES: dict[str, Any] = {
    "/v1/vector_stores/{store_id}": {"name": "mine now"},
    "/v1/vector_stores/{store_id}/search": {"query": "charging"},
    "/v1/vector_stores/{store_id}/files": {"file_id": "<file_id>"},
    "/v1/vector_stores/{store_id}/files/{file_id}": {"attributes": {"a": "b"}},
    "/v1/vector_stores/{store_id}/file_batches": {"file_ids": ["<file_id>"]},
    "/v1/chat/completions/{completion_id}": {"metadata": {"a": "b"}},
    "/v1/chat/completions/{completion_id}/rating": {"rating": "good"},
}
SEARCH = {"type": "file_search", "vector_store_ids": ["<store_id>"]}
# Requests that name things in their bodies.
NAMING: dict[str, tuple[str, Any]] = {
    "training file": ("/v1/fine_tuning/jobs", {"model": BASE, "training_file": "<training_file>"}),
    "batch of a file": (
        "/v1/batches",
        {"input_file_id": "<batch_file>", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    ),
    "store of files": ("/v1/vector_stores", {"file_ids": ["<file_id>"]}),
    "profile of a store": ("/v1/profiles", {"name": "p", "strategy": "rag", "collection": "<store_id>"}),
    "profile of a model": ("/v1/profiles", {"name": "p", "strategy": "fine_tuned", "model": TUNED}),
    "chat with a profile": ("/v1/chat/completions", {"model": "help", **CHAT}),
    "chat with a model": ("/v1/chat/completions", {"model": TUNED, **CHAT}),
    "completion by a model": ("/v1/completions", {"model": TUNED, "prompt": "Aye"}),
    "embedding by a model": ("/v1/embeddings", {"model": TUNED, "input": "Aye"}),
    "response by a model": ("/v1/responses", {"model": TUNED, "input": "Aye"}),
    "response from a store": ("/v1/responses", {"model": BASE, "input": "Aye", "tools": [SEARCH]}),
    "response that goes on": (
        "/v1/responses",
        {"model": BASE, "input": "And?", "previous_response_id": "<response_id>"},
    ),
    "tokens of what goes on": (
        "/v1/responses/input_tokens",
        {"model": BASE, "input": "And?", "previous_response_id": "<response_id>"},
    ),
    "my store and a file": ("/v1/vector_stores/{own_store}/files", {"file_id": "<file_id>"}),
    "my store and files": ("/v1/vector_stores/{own_store}/file_batches", {"file_ids": ["<file_id>"]}),
}
# 400, as the hosted API has it.
NAMED_BADLY = ("training file", "batch of a file")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with box_of_everything(tmp_path_factory.mktemp("tenancy")) as made:
        yield made


def hidden_from_scopes(path: str) -> bool:
    """Jobs and batches belong to the project: a key that reaches some collections and models sees those all the
    same. What they read and wrote are files, which it does not."""
    return not path.startswith(("/v1/fine_tuning/", "/v1/batches/"))


@pytest.mark.parametrize("who", OUTSIDERS)
def test_no_route_tells_of_what_is_outside(box: Box, who: str) -> None:
    """404, and in the words for what never was."""
    routes = [one for one in box.naming() if who == "stranger" or hidden_from_scopes(one[1])]
    assert len(routes) >= 30
    told = {}
    for method, path in routes:
        query = "?version=1" if path.startswith("/passages") else ""
        body = BODIES.get(path) if method == "POST" else None
        answer = box.ask(who, method, path + query, body)
        unknown = box.without_any().ask(who, method, path + query, body)
        if answer.status_code != 404 or box.told(answer) != box.told(unknown) or set(answer.json()) != {"error"}:
            told[f"{method} {path}"] = (answer.status_code, answer.text[:200], unknown.text[:200])
    if who == "scoped":  # it may not write profiles at all, and is told so whatever it names
        assert told.pop("DELETE /v1/profiles/{name}")[0] == 403
    assert told == {}


@pytest.mark.parametrize("what", NAMING)
@pytest.mark.parametrize("who", OUTSIDERS)
def test_no_body_reaches_what_is_outside(box: Box, who: str, what: str) -> None:
    path, body = NAMING[what]
    box = replace(box, ids={**box.ids, "own_store": box.ids[f"{who} store"]})
    nothing = replace(box.without_any(), ids={**box.without_any().ids, "own_store": box.ids["own_store"]})
    answer = box.ask(who, "POST", path, body)
    if "<" in str(body):
        assert box.told(answer) == box.told(nothing.ask(who, "POST", path, body))
    # A key that reaches some collections makes neither others nor profiles, whatever they are named.
    refused = 400 if what in NAMED_BADLY else 403 if who == "scoped" and path == "/v1/profiles" else 404
    assert answer.status_code == refused, answer.text


@pytest.mark.parametrize("who", OUTSIDERS)
def test_no_list_holds_what_is_outside(box: Box, who: str) -> None:
    """Every GET without a parameter, whatever it answers with."""
    shown = {"project_id", "other_project_id", f"{who} store"}
    if who == "scoped":  # jobs and batches name their files
        shown |= {"job_id", "training_file", "/v1/batches batch_id", "batch_file"}
    hidden = {value for name, value in box.ids.items() if name not in shown}
    for method, path in box.routes():
        if method != "GET" or "{" in path or path.startswith(ORGANIZATION) or path == "/metrics":
            continue
        answer = box.ask(who, method, path)
        assert answer.status_code in (200, 503), path
        assert [one for one in (*hidden, QUESTION) if one in answer.text] == [], path


@pytest.mark.parametrize("who", OUTSIDERS)
def test_no_list_goes_on_behind_what_is_outside(box: Box, who: str) -> None:
    """`after` takes an id, too."""
    lists = {
        "/v1/files": "file_id",
        "/v1/vector_stores": "store_id",
        "/v1/fine_tuning/jobs": "job_id",
        "/v1/batches": "/v1/batches batch_id",
        "/v1/chat/completions": "completion_id",
    }
    paths = box.world.gateway.app.control.openapi()["paths"]  # type: ignore[attr-defined]
    takes = {
        path
        for path, methods in paths.items()
        for one in methods.get("get", {}).get("parameters", [])
        if one["name"] == "after" and "{" not in path and not path.startswith(ORGANIZATION)
    }
    assert takes == set(lists)
    for path, name in lists.items():
        if who == "stranger" or hidden_from_scopes(f"{path}/"):
            answer = box.ask(who, "GET", f"{path}?after={box.ids[name]}")
            assert answer.status_code in (400, 404), path
            assert box.told(answer) == box.told(box.ask(who, "GET", f"{path}?after=nobody-made-this")), path


@pytest.mark.parametrize("who", ["ana", "admin", "scoped", "stranger"])
def test_no_route_of_the_organization_answers_anybody_but_owners(box: Box, who: str) -> None:
    routes = [one for one in box.routes() if one[1].startswith(ORGANIZATION)]
    assert len(routes) >= 25
    meant = replace(box, ids={**box.ids, "kind": "images"})
    told = {one: meant.ask(who, *one, {} if one[0] == "POST" else None).status_code for one in routes}
    assert {one: status for one, status in told.items() if status != 403} == {}


def test_an_owner_finds_a_key_in_its_own_project_only(box: Box) -> None:
    """The project of the path counts, not the key's."""
    below = ORGANIZATION + "/projects/{project_id}/"
    bodies = {"{account_id}/api_keys": {"name": "x"}, "{account_id}": {"name": "x"}, "{key_id}": {"name": "x"}}
    elsewhere = replace(box, ids={**box.ids, "project_id": box.ids["other_project_id"]})
    for method, path in box.routes():
        if path.startswith(below) and "{" in path.removeprefix(below):
            end = next((body for tail, body in bodies.items() if path.endswith(tail)), {})
            answer = elsewhere.ask("owner", method, path, end if method == "POST" else None)
            assert answer.status_code == 404, (method, path, answer.text)
    for method, path in box.routes():
        if path.startswith(ORGANIZATION + "/projects/{project_id}"):
            body = {"name": "x"} if method == "POST" else None
            assert box.without_any().ask("owner", method, path, body).status_code == 404, (method, path)


def test_a_member_deletes_neither_models_nor_stores(box: Box) -> None:
    for path in ("/v1/models/{name:path}", "/v1/vector_stores/{store_id}"):
        assert box.ask("ana", "DELETE", path).status_code == 403, path


@pytest.mark.parametrize("who", ["ana", "scoped"])
def test_what_others_were_answered_is_for_admins_of_all_of_the_project(box: Box, who: str) -> None:
    """A key held to some collections read what was answered from the others, if it was an admin's."""
    for path in ("/v1/responses/{response_id}", "/v1/chat/completions/{completion_id}"):
        assert box.ask(who, "GET", path).status_code == 404
        assert box.ask("admin", "GET", path).status_code == 200
    assert box.ask(who, "GET", "/v1/chat/completions").json()["data"] == []


def test_a_scoped_key_works_within_its_scope(box: Box) -> None:
    box = replace(box, ids={**box.ids, "store_id": box.ids["scoped store"]})
    headers = {"authorization": f"Bearer {box.secrets['scoped']}"}
    mine = box.world.gateway.post(
        "/v1/files", files={"file": ("a.md", BATTERY)}, data={"purpose": "assistants"}, headers=headers
    ).json()
    box.ids["file_id"] = mine["id"]
    assert [one["id"] for one in box.ask("scoped", "GET", "/v1/files").json()["data"]] == [mine["id"]]
    assert [one["id"] for one in box.ask("scoped", "GET", "/v1/models").json()["data"]] == [BASE]
    assert [one["name"] for one in box.ask("scoped", "GET", "/v1/vector_stores").json()["data"]] == ["elsewhere"]
    attached = box.ask("scoped", "POST", "/v1/vector_stores/{store_id}/files", {"file_id": "<file_id>"})
    assert attached.status_code == 200, attached.text
    assert box.ask("scoped", "POST", "/v1/vector_stores/{store_id}/search", {"query": "x"}).status_code == 200
    assert box.ask("scoped", "POST", "/v1/vector_stores", {"name": "new"}).status_code == 403
    assert box.ask("scoped", "DELETE", "/v1/files/{file_id}").status_code == 200
    # Embedded by the base? No: encoders are models too, and this key may not name one.
    embedding = {"model": "all-MiniLM-L6-v2", "input": "x"}
    assert box.ask("scoped", "POST", "/v1/embeddings", embedding).json()["error"]["code"] == "model_not_found"
    assert box.ask("admin", "POST", "/v1/embeddings", embedding).status_code == 200


def test_after_all_that_nothing_is_missing(box: Box) -> None:
    for path in ("/v1/files/{file_id}", "/v1/vector_stores/{store_id}", "/v1/fine_tuning/jobs/{job_id}"):
        assert box.ask("admin", "GET", path).status_code == 200
    assert box.ask("admin", "GET", "/v1/models/{name}").status_code == 200
    assert box.ask("admin", "GET", "/v1/profiles").json()["data"][0]["name"] == "help"
    assert box.ask("admin", "GET", "/v1/fine_tuning/jobs/{job_id}").json()["status"] == "queued"


def test_every_reading_of_documents_is_in_the_audit_log(box: Box) -> None:
    counted = {"model": BASE, "input": QUESTION, "tools": [SEARCH]}
    reads = [
        ("GET", "/passages/{collection}/{document_id}?version=1", None, "document.read", "document_id"),
        ("GET", "/v1/vector_stores/{store_id}/files/{file_id}/content", None, "document.read", "document_id"),
        ("GET", "/v1/files/{file_id}/content", None, "file.downloaded", "file_id"),
        ("GET", "/v1/chat/completions/export?with_context=true", None, "chat.exported", None),
        ("POST", "/v1/responses/input_tokens", counted, "vector_store.searched", None),
    ]
    for method, path, body, action, named in reads:
        answer = box.ask("ana", method, path, body)
        assert answer.status_code == 200 or body is counted, (path, answer.text)  # this engine cannot count
        box.services.audit.flush()
        (entry,) = box.services.audit.find(AuditQuery(limit=1))[0]
        assert (entry.action, entry.object_id) == (action, named and box.ids[named]), path
        assert entry.key_id is not None
        if action in ("document.read", "vector_store.searched"):
            assert entry.detail["vector_store_id"] == box.ids["store_id"]
        if action == "vector_store.searched":
            assert [one["id"] for one in entry.detail["documents"]] == [box.ids["document_id"]]


def test_every_write_is_in_the_audit_log(box: Box) -> None:
    """Runs last: it deletes. What each route is to leave there; a new one that writes has to be added."""
    writes = [
        ("POST", "/v1/vector_stores/{store_id}", {"name": "kb2"}, "vector_store.updated"),
        ("POST", "/v1/vector_stores/{store_id}/search", {"query": "x"}, "vector_store.searched"),
        ("POST", "/v1/vector_stores/{store_id}/files", {"file_id": "<file_id>"}, "vector_store.file.created"),
        (
            "POST",
            "/v1/vector_stores/{store_id}/files/{file_id}",
            {"attributes": {"a": "b"}},
            "vector_store.file.updated",
        ),
        (
            "POST",
            "/v1/vector_stores/{store_id}/file_batches",
            {"file_ids": ["<file_id>"]},
            "vector_store.file.created",
        ),
        (
            "POST",
            "/v1/vector_stores/{store_id}/file_batches/{batch_id}/cancel",
            None,
            "vector_store.batch.cancelled",
        ),
        ("DELETE", "/v1/vector_stores/{store_id}/files/{file_id}", None, "vector_store.file.deleted"),
        ("POST", "/v1/fine_tuning/jobs/{job_id}/pause", None, "fine_tuning.job.paused"),
        ("POST", "/v1/fine_tuning/jobs/{job_id}/resume", None, "fine_tuning.job.resumed"),
        ("POST", "/v1/fine_tuning/jobs/{job_id}/cancel", None, "fine_tuning.job.cancelled"),
        ("POST", "/v1/batches/{batch_id}/cancel", None, "batch.cancelled"),
        ("POST", "/v1/chat/completions/{completion_id}", {"metadata": {"a": "b"}}, "chat.updated"),
        ("POST", "/v1/chat/completions/{completion_id}/rating", {"rating": "good"}, "chat.rated"),
        ("DELETE", "/v1/chat/completions/{completion_id}", None, "chat.deleted"),
        ("DELETE", "/v1/responses/{response_id}", None, "response.deleted"),
        ("DELETE", "/v1/models/{name}", None, "model.deleted"),
        ("DELETE", "/v1/profiles/{name}", None, "profile.deleted"),
        ("DELETE", "/v1/vector_stores/{store_id}", None, "vector_store.deleted"),
        ("DELETE", "/v1/files/{file_id}", None, "file.deleted"),
    ]
    tested = {(method, path) for method, path, _, _ in writes}
    changes_nothing = {("POST", "/v1/responses/{response_id}/cancel")}
    assert {one for one in box.naming() if one[0] != "GET"} == tested | changes_nothing
    for method, path, body, action in writes:
        answer = box.ask("admin", method, path, body)
        assert answer.status_code == 200, (path, answer.text)
        box.services.audit.flush()
        assert _newest(box) == action, path


def _newest(box: Box) -> str:
    return box.services.audit.find(AuditQuery(limit=1))[0][0].action
