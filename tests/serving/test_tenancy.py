"""What lies outside a key's project or scope is as if it were not there, on every route that names something."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local_llm.adapters import AdapterRegistry, AdapterRun
from local_llm.audit import AuditQuery
from local_llm.keys import KeyStore, Scopes
from local_llm.models import ModelStore
from local_llm.projects import ProjectStore
from local_llm.settings import Settings
from local_llm.state import State
from serving.services import Services

from ..handmade_adapters import write_adapter
from .conftest import BASE, chat_lines
from .vector_store_world import World, index_server, running_gateway

TUNED = f"ft:{BASE}:local:support:abcd1234"
CHAT = {"messages": [{"role": "user", "content": "How long does charging take?"}]}
BATTERY = b"# Battery\n\nThe battery charges in four hours from a wall socket.\n"

# What the parameters of paths stand for, and the bodies of those that want one. A new route has to say its own.
BODIES: dict[str, Any] = {
    "/v1/vector_stores/{store_id}": {"name": "mine now"},
    "/v1/vector_stores/{store_id}/search": {"query": "charging"},
    "/v1/vector_stores/{store_id}/files": {"file_id": "<file_id>"},
    "/v1/vector_stores/{store_id}/files/{file_id}": {"attributes": {"a": "b"}},
    "/v1/vector_stores/{store_id}/file_batches": {"file_ids": ["<file_id>"]},
}
# Requests that name things in their bodies.
NAMING: dict[str, tuple[str, Any]] = {
    "training file": ("/v1/fine_tuning/jobs", {"model": BASE, "training_file": "<file_id>"}),
    "store of files": ("/v1/vector_stores", {"file_ids": ["<file_id>"]}),
    "profile of a store": ("/v1/profiles", {"name": "p", "strategy": "rag", "collection": "<store_id>"}),
    "profile of a model": ("/v1/profiles", {"name": "p", "strategy": "fine_tuned", "model": TUNED}),
    "chat with a profile": ("/v1/chat/completions", {"model": "help", **CHAT}),
    "chat with a model": ("/v1/chat/completions", {"model": TUNED, **CHAT}),
    "completion by a model": ("/v1/completions", {"model": TUNED, "prompt": "Aye"}),
}


@dataclass
class Box:
    world: World
    ids: dict[str, str]
    secrets: dict[str, str]

    def ask(self, who: str, method: str, path: str, body: Any = None) -> Any:
        """`path` and `body` name things by what they are: {store_id}, <store_id>."""
        for name, identifier in self.ids.items():
            path = path.replace(f"{{{name}}}", identifier)
            body = _filled(body, f"<{name}>", identifier)
        assert "{" not in path, "say what this parameter stands for"
        headers = {"authorization": f"Bearer {self.secrets[who]}"}
        return self.world.gateway.request(method, path, json=body, headers=headers)

    def routes(self) -> list[tuple[str, str]]:
        """Those that name something and are not the organization's."""
        paths = self.world.gateway.app.control.openapi()["paths"]  # type: ignore[attr-defined]
        return [
            (method.upper(), path)
            for path, methods in paths.items()
            for method in methods
            if "{" in path and not path.startswith("/v1/organization")
        ]


def _filled(body: Any, mark: str, value: str) -> Any:
    if isinstance(body, dict):
        return {key: _filled(one, mark, value) for key, one in body.items()}
    if isinstance(body, list):
        return [_filled(one, mark, value) for one in body]
    return value if body == mark else body


def publish(settings: Settings, state: State, folder: Path) -> None:
    AdapterRegistry(settings, state).publish(
        write_adapter(folder),
        base=ModelStore(settings.place.models).get(BASE),
        name=TUNED,
        project_id=state.local_project_id(),
        run=AdapterRun(data_sha256="d", settings={}, metrics={}, versions={}),
    )


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("tenancy")
    with running_gateway(folder) as world, index_server(world):
        client = world.client()
        publish(world.settings, world.state, folder / "adapter")
        file = client.files.create(file=("battery.md", BATTERY), purpose="assistants")
        store = client.vector_stores.create(name="kb")
        batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=[file.id], poll_interval_ms=20)
        lines = client.files.create(file=("rows.jsonl", io.BytesIO(chat_lines())), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model=BASE, training_file=lines.id)
        (hit,) = client.vector_stores.search(store.id, query="charging").data
        ids = {
            "file_id": file.id,
            "store_id": store.id,
            "collection": store.id,
            "batch_id": batch.id,
            "job_id": job.id,
            "document_id": hit.model_dump()["document_id"],
            "name": TUNED,
            "name:path": TUNED,
        }
        made = Box(world, ids, dict(world.secrets))
        profile = {"name": "help", "strategy": "rag", "collection": "kb"}
        assert made.ask("admin", "POST", "/v1/profiles", profile).status_code == 200
        keys, own = KeyStore(world.state), world.state.local_project_id()
        stranger = ProjectStore(world.state).create("other")
        made.secrets["stranger"] = keys.create(stranger.id, "stranger", role="admin").secret
        other = client.vector_stores.create(name="elsewhere")
        scopes = Scopes(models=[BASE], collections=[other.id])
        made.secrets["scoped"] = keys.create(own, "scoped", role="admin", scopes=scopes).secret
        made.ids["other_store"] = other.id
        yield made


def hidden_from_scopes(path: str) -> bool:
    """Jobs belong to the project: a key that reaches some collections and models sees those all the same."""
    return "/fine_tuning/" not in path


@pytest.mark.parametrize("who", ["stranger", "scoped"])
def test_no_route_tells_of_what_is_outside(box: Box, who: str) -> None:
    routes = [one for one in box.routes() if who == "stranger" or hidden_from_scopes(one[1])]
    assert len(routes) >= 20
    told = {}
    for method, path in routes:
        query = "?version=1" if path.startswith("/passages") else ""
        body = BODIES.get(path) if method == "POST" else None
        answer = box.ask(who, method, path + query, body)
        if answer.status_code != 404 or set(answer.json()) != {"error"}:
            told[f"{method} {path}"] = (answer.status_code, answer.text[:200])
    if who == "scoped":  # it may not write profiles at all, and is told so whatever it names
        assert told.pop("DELETE /v1/profiles/{name}")[0] == 403
    assert told == {}


@pytest.mark.parametrize("what", NAMING)
@pytest.mark.parametrize("who", ["stranger", "scoped"])
def test_no_body_reaches_what_is_outside(box: Box, who: str, what: str) -> None:
    path, body = NAMING[what]
    answer = box.ask(who, "POST", path, body)
    if what == "training file":  # 400, as the hosted API has it
        assert answer.json()["error"]["message"].endswith("does not exist")
        return
    # A key that reaches some collections makes neither others nor profiles, whatever they are named.
    refused = 403 if who == "scoped" and path == "/v1/profiles" else 404
    assert answer.status_code == refused, answer.text


@pytest.mark.parametrize("who", ["stranger", "scoped"])
def test_no_list_holds_what_is_outside(box: Box, who: str) -> None:
    for path in ("/v1/files", "/v1/vector_stores", "/v1/profiles", "/v1/models"):
        listed = {one["id"] for one in box.ask(who, "GET", path).json()["data"]}
        assert listed.isdisjoint({*box.ids.values(), "help"} - {box.ids["other_store"]}), path
    if who == "stranger":
        assert box.ask(who, "GET", "/v1/fine_tuning/jobs").json()["data"] == []


def test_a_scoped_key_works_within_its_scope(box: Box) -> None:
    box = Box(box.world, {**box.ids, "store_id": box.ids["other_store"]}, box.secrets)
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
        ("DELETE", "/v1/models/{name}", None, "model.deleted"),
        ("DELETE", "/v1/profiles/help", None, "profile.deleted"),
        ("DELETE", "/v1/vector_stores/{store_id}", None, "vector_store.deleted"),
        ("DELETE", "/v1/files/{file_id}", None, "file.deleted"),
    ]
    tested = {(method, path.replace("/profiles/help", "/profiles/{name}")) for method, path, _, _ in writes}
    assert {one for one in box.routes() if one[0] != "GET"} == tested
    services: Services = box.world.gateway.app.services()  # type: ignore[attr-defined]
    for method, path, body, action in writes:
        answer = box.ask("admin", method, path, body)
        assert answer.status_code == 200, (path, answer.text)
        services.audit.flush()
        assert _newest(services) == action, path


def _newest(services: Services) -> str:
    return services.audit.find(AuditQuery(limit=1))[0][0].action
