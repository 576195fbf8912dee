"""/v1/organization through the real client: projects, keys, the audit log, usage and costs."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from local_llm.audit import Audit, AuditQuery
from local_llm.keys import KeyStore
from local_llm.permissions import Caller
from local_llm.projects import FLAGS, VALUES
from local_llm.state import Collection, Key, Project, State
from local_llm.usage import Usage
from serving.services import Services

from .conftest import BASE

URL = "http://127.0.0.1:8000/v1"
DAY = 86400
PAGE = Path(__file__).parents[2] / "docs" / "keys.md"


@dataclass
class Box:
    gateway: TestClient
    state: State
    owner: openai.OpenAI
    owner_secret: str
    project_id: str

    @property
    def services(self) -> Services:
        return self.gateway.app.services()  # type: ignore[attr-defined]

    def client(self, secret: str) -> openai.OpenAI:
        """Its key serves as API key and as admin key."""
        return openai.OpenAI(
            api_key=secret, admin_api_key=secret, base_url=URL, http_client=self.gateway, max_retries=0
        )

    def post(self, path: str, body: dict[str, Any], secret: str | None = None) -> Any:
        """What the client has no method for."""
        headers = {"authorization": f"Bearer {secret or self.owner_secret}"}
        return self.gateway.post(f"/v1/organization{path}", json=body, headers=headers)


@pytest.fixture
def box(gateway: TestClient, state: State, admin: Caller) -> Box:
    secret = KeyStore(state).create(admin.project_id, "boss", role="owner").secret
    made = Box(gateway, state, None, secret, admin.project_id)  # type: ignore[arg-type]
    made.owner = made.client(secret)
    return made


def test_projects_are_made_listed_changed_and_archived(box: Box) -> None:
    projects = box.owner.admin.organization.projects
    made = projects.create(name="support", extra_body={"log_content": True})
    assert (made.object, made.name, made.status, made.archived_at) == (
        "organization.project",
        "support",
        "active",
        None,
    )
    assert projects.retrieve(made.id).model_dump()["log_content"] is True
    assert projects.update(made.id, name="help desk").name == "help desk"
    names = ["local", "help desk", *(f"p{number}" for number in range(3))]
    for name in names[2:]:
        projects.create(name=name)
    assert [one.name for one in projects.list(limit=2)] == names  # all pages
    assert projects.archive(made.id).status == "archived"
    assert "help desk" not in [one.name for one in projects.list()]
    assert "help desk" in [one.name for one in projects.list(include_archived=True)]


def test_whatever_is_set_of_a_project_is_shown(box: Box) -> None:
    """`store_responses` was neither: it came when the list of flags stood in five places."""
    made = box.post("/projects", {"name": "flags"}).json()
    assert {name: made[name] for name in VALUES} == {
        "log_content": False,
        "store_chats": False,
        "store_responses": True,
        "file_quota_bytes": None,
        "collection_quota_bytes": None,
    }
    for name in VALUES:
        wanted = not made[name] if name in FLAGS else 7
        assert box.post(f"/projects/{made['id']}", {name: wanted}).json()[name] == wanted
    shown = box.owner.admin.organization.projects.retrieve(made["id"]).model_dump()
    assert {name: shown[name] for name in VALUES} == dict.fromkeys(VALUES, 7) | {
        name: not made[name] for name in FLAGS
    }


def test_a_service_accounts_key_is_told_once_and_works_in_its_project(box: Box) -> None:
    projects = box.owner.admin.organization.projects
    project = projects.create(name="support")
    account = projects.service_accounts.create(
        project.id,
        name="app",
        extra_body={"principals": ["group:support"], "models": [BASE], "tokens_per_day": 1000},
    )
    assert account.api_key is not None
    assert (account.role, account.name) == ("member", "app")
    (listed,) = projects.api_keys.list(project.id)
    assert listed.id == account.api_key.id
    assert listed.owner.service_account is not None
    assert listed.owner.service_account.id == account.id
    assert account.api_key.value not in listed.model_dump_json()
    ours = projects.api_keys.retrieve(listed.id, project_id=project.id).model_dump()
    assert (ours["role"], ours["principals"], ours["models"]) == ("member", ["group:support"], [BASE])
    assert (ours["tokens_per_day"], ours["tokens_per_minute"]) == (1000, None)
    app = box.client(account.api_key.value)
    assert [model.id for model in app.models.list()] == [BASE]
    caller = box.services.access.caller(f"Bearer {account.api_key.value}".encode())
    assert (caller.project_id, caller.limits.tokens_per_day) == (project.id, 1000)
    second = projects.service_accounts.api_keys.create(account.id, project_id=project.id, name="app, second key")
    assert [one.name for one in projects.service_accounts.list(project.id)] == ["app"]
    assert len(list(projects.api_keys.list(project.id))) == 2
    assert projects.service_accounts.delete(account.id, project_id=project.id).deleted
    for secret in (account.api_key.value, second.value):
        with pytest.raises(openai.AuthenticationError):
            box.client(secret).models.list()


def test_a_deleted_key_is_refused_at_once_and_found_no_more(box: Box) -> None:
    keys = box.owner.admin.organization.projects.api_keys
    accounts = box.owner.admin.organization.projects.service_accounts
    made = accounts.create(box.project_id, name="app").api_key
    assert made is not None
    assert keys.delete(made.id, project_id=box.project_id).deleted
    with pytest.raises(openai.AuthenticationError):
        box.client(made.value).models.list()
    with pytest.raises(openai.NotFoundError):
        keys.retrieve(made.id, project_id=box.project_id)
    with pytest.raises(openai.NotFoundError):
        keys.delete(made.id, project_id=box.project_id)


def test_a_key_is_rotated_and_its_limits_changed(box: Box) -> None:
    made = box.post(f"/projects/{box.project_id}/service_accounts", {"name": "app", "tokens_per_day": 5}).json()
    key = made["api_key"]
    path = f"/projects/{box.project_id}/api_keys/{key['id']}"
    rotated = box.post(f"{path}/rotate", {"overlap_seconds": 60}).json()
    assert (rotated["id"], rotated["tokens_per_day"]) == (key["id"], 5)
    assert rotated["value"] != key["value"]
    for secret in (key["value"], rotated["value"]):
        assert box.client(secret).models.list().data
    again = box.post(f"{path}/rotate", {"overlap_seconds": 0}).json()
    for secret in (key["value"], rotated["value"]):
        with pytest.raises(openai.AuthenticationError):
            box.client(secret).models.list()
    changed = box.post(path, {"requests_per_minute": 7, "role": "owner"}).json()
    assert (changed["requests_per_minute"], changed["tokens_per_day"], changed["role"]) == (7, 5, "admin")
    assert box.post(path, {"tokens_per_day": None}).json()["tokens_per_day"] is None
    assert box.client(again["value"]).models.list().data


def test_an_owner_of_a_project_is_no_owner_of_the_box(box: Box) -> None:
    """The API calls a project's admin its owner; that must not open other projects."""
    accounts = box.owner.admin.organization.projects.service_accounts
    made = accounts.create(box.project_id, name="app", extra_body={"role": "owner"})
    assert made.api_key is not None
    assert accounts.update(made.id, project_id=box.project_id, role="owner").role == "owner"
    with pytest.raises(openai.PermissionDeniedError):
        box.client(made.api_key.value).admin.organization.projects.list()


def test_admin_keys_are_owners(box: Box) -> None:
    keys = box.owner.admin.organization.admin_api_keys
    made = keys.create(name="second boss", expires_in_seconds=3600)
    assert made.expires_at is not None
    assert abs(made.expires_at - time.time() - 3600) < 30
    second = box.client(made.value)
    assert second.admin.organization.projects.create(name="mine").name == "mine"
    assert [one.name for one in keys.list(order="asc")] == ["boss", "second boss"]
    assert [one.name for one in keys.list(limit=1)] == ["second boss", "boss"]
    assert keys.retrieve(made.id).owner.role == "owner"
    assert keys.delete(made.id).deleted
    with pytest.raises(openai.AuthenticationError):
        second.admin.organization.projects.list()
    with pytest.raises(openai.NotFoundError):
        keys.retrieve(made.id)


def test_the_last_owners_key_is_neither_deleted_nor_demoted(box: Box) -> None:
    """A box could lose everybody who may manage it."""
    keys, projects = box.owner.admin.organization.admin_api_keys, box.owner.admin.organization.projects
    (boss,) = keys.list()
    (account,) = projects.service_accounts.list(box.project_id)
    path = f"/projects/{box.project_id}"
    refused = [
        lambda: keys.delete(boss.id),
        lambda: projects.api_keys.delete(boss.id, project_id=box.project_id),
        lambda: projects.service_accounts.delete(account.id, project_id=box.project_id),
        lambda: projects.service_accounts.update(account.id, project_id=box.project_id, role="member"),
    ]
    gone = KeyStore(box.state).create(box.project_id, "expired", role="owner").key.id
    with box.state.session() as session:
        session.get_one(Key, gone).expires_at = 5
    for call in refused:
        with pytest.raises(openai.ConflictError, match="last owner's key"):
            call()
    assert box.post(f"{path}/api_keys/{boss.id}", {"role": "owner"}).status_code == 409
    assert box.post(f"{path}/api_keys/{boss.id}", {"name": "chief"}).json()["name"] == "chief"
    keys.create(name="deputy")
    assert keys.delete(boss.id).deleted


def test_another_key_of_an_account_may_no_more_than_the_first(box: Box) -> None:
    """It got everything: all models, collections, documents, and no limits."""
    held = {
        "principals": ["user:ana"],
        "models": [BASE],
        "collections": [store_of(box)],
        "tokens_per_day": 5,
        "requests_per_minute": 6,
    }
    account = box.post(f"/projects/{box.project_id}/service_accounts", {"name": "app", **held}).json()
    path = f"/projects/{box.project_id}/service_accounts/{account['id']}/api_keys"
    second = box.post(path, {})
    assert second.status_code == 200, second.text
    like = KeyStore(box.state).get(box.project_id, second.json()["id"])
    assert {name: getattr(like, name) for name in held} == held
    third = box.post(path, {"models": None, "tokens_per_day": 9, "principals": []}).json()
    told = KeyStore(box.state).get(box.project_id, third["id"])
    assert (told.models, told.tokens_per_day, told.principals) == (None, 9, [])
    assert (told.collections, told.requests_per_minute) == (held["collections"], 6)


def store_of(box: Box) -> str:
    row = Collection(
        id="vs_1", project_id=box.project_id, name="kb", encoder="none", encoder_fingerprint="", created_at=1
    )
    with box.state.session() as session:
        session.add(row)
    return "vs_1"


@pytest.mark.parametrize("what", ["profile", "account", "key"])
def test_nobody_waits_for_somebody_elses_write(box: Box, what: str) -> None:
    """It was done on the event loop: while the database was busy, no request of anybody was answered."""
    account = box.post(f"/projects/{box.project_id}/service_accounts", {"name": "app"}).json()["id"]
    accounts = f"/v1/organization/projects/{box.project_id}/service_accounts/{account}"
    path, body = {
        "profile": ("/v1/profiles", {"name": "plain", "strategy": "base"}),
        "account": (accounts, {"name": "other"}),
        "key": (f"{accounts}/api_keys", {"name": "second"}),
    }[what]
    headers = {"authorization": f"Bearer {box.owner_secret}"}
    with ThreadPoolExecutor(1) as pool:
        with box.state.session() as other:
            other.get(Key, "none")  # it has the lock for writing from here on
            writing = pool.submit(lambda: box.gateway.post(path, json=body, headers=headers))
            time.sleep(0.3)
            began = time.perf_counter()
            assert box.gateway.get("/health").status_code == 200
            assert time.perf_counter() - began < 2
            assert not writing.done()
        assert writing.result().status_code == 200


def organization_routes(gateway: TestClient) -> list[tuple[str, str]]:
    paths = gateway.get("/openapi.json").json()["paths"]
    return [
        (method, path)
        for path, methods in paths.items()
        for method in methods
        if path.startswith("/v1/organization")
    ]


def test_nobody_but_owners_reaches_any_of_it(box: Box) -> None:
    secrets = [KeyStore(box.state).create(box.project_id, "x", role=role).secret for role in ("member", "admin")]
    routes = organization_routes(box.gateway)
    assert len(routes) > 20
    for method, path in routes:
        url = path.format(project_id=box.project_id, key_id="k", account_id="a", kind="images")
        for secret in secrets:
            headers = {"authorization": f"Bearer {secret}"}
            answer = box.gateway.request(method, url, headers=headers, content=b"{ not read")
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_permissions"), url
        assert box.gateway.request(method, url, content=b"{").status_code == 401


def test_the_local_user_of_a_box_without_keys_is_an_owner(client: openai.OpenAI) -> None:
    boss = client.with_options(admin_api_key="none")
    assert [one.name for one in boss.admin.organization.projects.list()] == ["local"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/projects", {}, 400, "name"),
        ("/projects", {"name": ""}, 400, "name"),
        ("/projects", {"name": "local"}, 409, "name"),
        ("/projects", {"name": "x", "geography": "EU"}, 400, "geography"),
        ("/projects", {"name": "x", "log_content": "yes"}, 400, "log_content"),
        ("/projects/local", {"file_quota_bytes": 0}, 400, "file_quota_bytes"),
        ("/projects/nothing", {"name": "x"}, 404, "project_id"),
        ("/projects/nothing/service_accounts", {"name": "x"}, 404, "project_id"),
        ("/projects/local/service_accounts", {"name": "x", "role": "king"}, 400, "role"),
        ("/projects/local/service_accounts", {"name": "x", "collections": ["kb"]}, 404, "collections"),
        ("/projects/local/service_accounts", {"name": "x", "models": []}, 400, "models"),
        ("/projects/local/service_accounts", {"name": "x", "tokens_per_day": 0}, 400, "tokens_per_day"),
        ("/projects/local/service_accounts", {"name": "x", "expires_at": 5}, 400, "expires_at"),
        (
            "/projects/local/service_accounts",
            {"name": "x", "create_service_account_only": True},
            400,
            "create_service_account_only",
        ),
        ("/projects/local/api_keys/key_none/rotate", {}, 404, "key_id"),
        ("/admin_api_keys", {"name": "x", "expires_in_seconds": 0}, 400, "expires_in_seconds"),
        ("/projects/local/archive", {}, 409, "project_id"),
    ],
)
def test_a_wrong_body_is_told_by_field(box: Box, path: str, body: dict, status: int, param: str) -> None:
    answer = box.post(path, body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.json()


def test_what_was_done_is_in_the_audit_log_within_a_second(box: Box) -> None:
    organization = box.owner.admin.organization
    project = organization.projects.create(name="support")
    account = organization.projects.service_accounts.create(project.id, name="app")
    assert account.api_key is not None
    app = box.client(account.api_key.value)
    file = app.files.create(file=("a.txt", b"hello"), purpose="user_data")
    app.files.delete(file.id)
    time.sleep(1.3)
    entries = list(organization.audit_logs.list(project_ids=[project.id], limit=2))  # several pages
    assert [entry.type for entry in entries] == [
        "file.deleted",
        "file.created",
        "api_key.created",
        "service_account.created",
        "project.created",
    ]
    assert entries[-1].project_created is not None
    assert entries[-1].project_created.id == project.id
    assert entries[0].actor is not None
    assert entries[0].actor.api_key is not None
    assert entries[0].actor.api_key.id == account.api_key.id
    by_key = organization.audit_logs.list(actor_ids=[account.api_key.id], event_types=["file.created"])  # type: ignore[list-item]
    assert [entry.type for entry in by_key] == ["file.created"]
    about = organization.audit_logs.list(resource_ids=[account.id])
    assert [entry.type for entry in about] == ["service_account.created"]
    assert list(organization.audit_logs.list(effective_at={"lt": 5})) == []
    assert account.api_key.value not in "".join(entry.model_dump_json() for entry in entries)


def count(box: Box, caller: Caller, at: int, model: str, kind: Any, **used: int) -> None:
    usage = Usage(box.state, lambda: at)
    usage.count(caller, model, kind, **used)
    usage.flush()


def test_usage_is_summed_over_days_and_groups(box: Box, admin: Caller) -> None:
    start = int(time.time()) // DAY * DAY - 2 * DAY
    ana = KeyStore(box.state).authenticate(KeyStore(box.state).create(box.project_id, "ana").secret)
    count(box, ana, start + 5, "tiny", "completions", input_tokens=10, cached_tokens=4, output_tokens=3)
    count(box, ana, start + 70, "tiny", "batch", input_tokens=100, output_tokens=30)
    count(box, admin, start + DAY, "ft:tiny", "completions", input_tokens=1000)
    count(box, ana, start + 5, "MiniLM", "embeddings", input_tokens=7)
    count(box, ana, start + 5, "vs_1", "file_search", passages=5)
    usage = box.owner.admin.organization.usage

    page = usage.completions(start_time=start, end_time=start + 3 * DAY)
    assert [(one.start_time, one.end_time) for one in page.data] == [
        (start + day * DAY, start + (day + 1) * DAY) for day in range(3)
    ]
    first, second, third = (bucket.results for bucket in page.data)
    counted: Any = first[0]
    assert (counted.num_model_requests, counted.input_tokens, counted.output_tokens) == (2, 110, 33)
    assert (counted.input_cached_tokens, counted.model) == (4, None)
    assert second[0].input_tokens == 1000  # type: ignore[union-attr]
    assert third == []

    grouped: list[Any] = [
        result
        for bucket in usage.completions(start_time=start, group_by=["model", "batch", "api_key_id"]).data
        for result in bucket.results
    ]
    assert {(one.model, one.batch, one.api_key_id): one.input_tokens for one in grouped} == {
        ("tiny", False, ana.key_id): 10,
        ("tiny", True, ana.key_id): 100,
        ("ft:tiny", False, None): 1000,
    }
    only: Any = usage.completions(start_time=start, batch=True, models=["tiny"]).data[0].results[0]
    assert only.input_tokens == 100
    assert usage.completions(start_time=start, project_ids=["proj_other"]).data[0].results == []
    assert usage.completions(start_time=start, api_key_ids=[str(ana.key_id)]).data[1].results == []

    embedded: Any = usage.embeddings(start_time=start, group_by=["project_id"]).data[0].results[0]
    assert (embedded.input_tokens, embedded.project_id) == (7, box.project_id)
    searched: Any = usage.file_search_calls(start_time=start, group_by=["vector_store_id"]).data[0].results[0]
    assert (searched.num_requests, searched.vector_store_id) == (1, "vs_1")
    assert all(bucket.results == [] for bucket in usage.images(start_time=start).data)
    stored: Any = usage.vector_stores(start_time=start).data[-1].results[0]
    assert stored.usage_bytes == 0


def test_usage_comes_page_by_page_and_minute_by_minute(box: Box, admin: Caller) -> None:
    start = int(time.time()) // 3600 * 3600 - 3600
    for minute in (0, 3):
        count(box, admin, start + minute * 60 + 59, "tiny", "completions", input_tokens=minute + 1)
    usage, found, page = box.owner.admin.organization.usage, [], None
    while True:
        asked = {} if page is None else {"page": page}
        answer = usage.completions(start_time=start, end_time=start + 300, bucket_width="1m", limit=2, **asked)
        found += [(bucket.start_time - start, len(bucket.results)) for bucket in answer.data]
        page = answer.next_page
        if not answer.has_more:
            break
    assert found == [(0, 1), (60, 0), (120, 0), (180, 1), (240, 0)]


def test_costs_are_the_machines_hours_shared_out_by_tokens(box: Box, admin: Caller) -> None:
    now = int(time.time())
    today = now // DAY * DAY
    other = box.owner.admin.organization.projects.create(name="other")
    key = KeyStore(box.state).create(other.id, "x")
    caller = KeyStore(box.state).authenticate(key.secret)
    with box.state.session() as session:  # the box has been there since yesterday noon
        session.get_one(Project, box.project_id).created_at = today - DAY // 2
    count(box, admin, today - 60, "tiny", "completions", input_tokens=400, cached_tokens=100)
    count(box, caller, today - 60, "tiny", "completions", output_tokens=100)
    costs = box.owner.admin.organization.usage.costs
    price = box.services.settings.cost.machine_usd_per_hour
    before, yesterday, _ = costs(start_time=today - 2 * DAY).data
    assert before.results == []
    whole: Any = yesterday.results[0]
    assert whole.amount.currency == "usd"
    assert whole.amount.value == pytest.approx(12 * price)
    shared: Any = costs(start_time=today - DAY, group_by=["project_id", "line_item"]).data[0].results
    assert {one.project_id: one.amount.value for one in shared} == {
        box.project_id: pytest.approx(12 * price * 3 / 4),
        other.id: pytest.approx(12 * price / 4),
    }
    assert sum(one.quantity for one in shared) == pytest.approx(12)
    mine: Any = costs(start_time=today - DAY, project_ids=[other.id]).data[0].results
    assert [one.amount.value for one in mine] == [pytest.approx(12 * price / 4)]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("", "start_time"),
        ("start_time=x", "start_time"),
        ("start_time=-1", "start_time"),
        ("start_time=1&bucket_width=1y", "bucket_width"),
        ("start_time=1&limit=32", "limit"),
        ("start_time=1&group_by[]=colour", "group_by"),
        ("start_time=1&page=2", "page"),
        ("start_time=1&batch=maybe", "batch"),
    ],
)
def test_a_wrong_question_about_usage_is_told_by_field(box: Box, query: str, param: str) -> None:
    headers = {"authorization": f"Bearer {box.owner_secret}"}
    answer = box.gateway.get(f"/v1/organization/usage/completions?{query}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_what_is_counted_and_noted_survives_a_stop_of_the_gateway(
    settings, gateway: TestClient, state, admin
) -> None:
    services: Services = gateway.app.services()  # type: ignore[attr-defined]
    services.audit.note(admin, "file.created", "file-1")
    services.usage.count(admin, "tiny", "completions", input_tokens=1)
    services.writer.close()
    assert [entry.action for entry in Audit(state).find(AuditQuery())[0]] == ["file.created"]


def test_when_a_key_was_last_used_is_told(box: Box) -> None:
    keys = box.owner.admin.organization.admin_api_keys
    assert list(keys.list())
    time.sleep(1.3)
    (boss,) = keys.list()
    assert boss.last_used_at is not None
    assert abs(boss.last_used_at - time.time()) < 30


def test_the_page_about_keys_does_what_it_says(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    made = "client = OpenAI()  # OPENAI_BASE_URL, OPENAI_API_KEY, OPENAI_ADMIN_KEY\n"
    assert made in snippet
    exec(snippet.replace(made, ""), {"client": box.owner})
    out = capsys.readouterr().out
    assert out.startswith("sk-local-")
    assert "chat widget sk-local-…" in out
