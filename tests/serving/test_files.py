"""/v1/files as the openai client uses it, and what it answers to what no client should send."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from local_llm.files import FINE_TUNE_RESULTS, FileStore
from local_llm.keys import KeyStore
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import Project, State
from serving.gateway import create_app

from .conftest import chat_lines

ERROR_KEYS = {"message", "type", "param", "code"}


def stored(settings: Settings) -> list[Path]:
    return list(settings.place.files.iterdir())


def with_limits(settings: Settings, **limits: int) -> Settings:
    return settings.model_copy(update={"server": settings.server.model_copy(update=limits)})


def refused(answer: Any, param: str | None, status: int = 400) -> dict[str, Any]:
    """The error of an answer, once it is seen to be in the envelope and to name its field."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == ERROR_KEYS
    assert answer.json()["error"]["param"] == param
    return answer.json()["error"]


def test_a_file_comes_back_as_it_was_sent_and_is_gone_when_deleted(
    client: openai.OpenAI, settings: Settings
) -> None:
    data = b"line\n" * 300_000
    created = client.files.create(file=("a.jsonl", data), purpose="batch")
    assert (created.object, created.bytes, created.filename) == ("file", len(data), "a.jsonl")
    assert client.files.retrieve(created.id) == created
    assert client.files.content(created.id).read() == data
    assert client.files.delete(created.id).deleted is True
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(created.id)
    assert stored(settings) == []


def test_the_client_pages_through_files_both_ways(client: openai.OpenAI) -> None:
    ids = [client.files.create(file=(f"{n}", b"x"), purpose="batch").id for n in range(5)]
    client.files.create(file=("other", b"x"), purpose="evals")
    newest = [file.id for file in client.files.list(limit=2, purpose="batch")]
    oldest = [file.id for file in client.files.list(limit=2, purpose="batch", order="asc")]
    assert sorted(newest) == sorted(ids)
    assert oldest == newest[::-1]


def test_a_page_of_files_tells_its_ends(gateway: TestClient, client: openai.OpenAI) -> None:
    for number in range(3):
        client.files.create(file=(f"{number}", b"x"), purpose="batch")
    first = gateway.get("/v1/files", params={"limit": 2}).json()
    assert (first["first_id"], first["last_id"]) == (first["data"][0]["id"], first["data"][1]["id"])
    rest = gateway.get("/v1/files", params={"limit": 2, "after": first["last_id"]}).json()
    assert (first["has_more"], len(rest["data"]), rest["has_more"]) == (True, 1, False)
    refused(gateway.get("/v1/files", params={"limit": 0}), "limit")
    refused(gateway.get("/v1/files", params={"limit": 10_001}), "limit")
    refused(gateway.get("/v1/files", params={"order": "sideways"}), "order")
    refused(gateway.get("/v1/files", params={"after": "file-none"}), "after", 404)


def test_every_purpose_that_is_taken_is_listed_again(client: openai.OpenAI) -> None:
    for purpose in ("assistants", "batch", "evals", "user_data", "vision"):
        client.files.create(file=("a", b"x"), purpose=purpose)  # type: ignore[arg-type]
    client.files.create(file=("a", chat_lines()), purpose="fine-tune")
    assert len(client.files.list().data) == 6


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (b'{"messages": 1}\nnot json\n', ["line 1", "line 2"]),
        (chat_lines() + b"\xff\n", ["line 11", "UTF-8"]),
        (b"\n\n", ["0 examples"]),
    ],
)
def test_a_malformed_training_file_is_refused_at_upload_with_all_its_problems(
    gateway: TestClient, settings: Settings, lines: bytes, told: list[str]
) -> None:
    answer = gateway.post("/v1/files", files={"file": ("bad.jsonl", lines)}, data={"purpose": "fine-tune"})
    error = refused(answer, "file")
    assert error["code"] == "invalid_training_file"
    assert error["message"].startswith("bad.jsonl has ")
    for part in told:
        assert part in error["message"]
    assert stored(settings) == []
    assert gateway.get("/v1/files").json()["data"] == []


def test_a_file_of_few_examples_may_be_for_validation(client: openai.OpenAI) -> None:
    assert client.files.create(file=("few.jsonl", chat_lines(2)), purpose="fine-tune").status == "processed"


PLAIN = ("file", ("a.txt", b"x"))


@pytest.mark.parametrize(
    ("files", "data", "param"),
    [
        ([PLAIN], {}, "purpose"),
        ([PLAIN], {"purpose": "world-domination"}, "purpose"),
        ([PLAIN], {"purpose": FINE_TUNE_RESULTS}, "purpose"),
        ([PLAIN], {"purpose": "p" * 100_000}, "purpose"),
        ([PLAIN], {"purpose": ["batch", "batch"]}, "purpose"),
        ([("purpose", ("p", b"batch")), PLAIN], {}, "purpose"),
        ([PLAIN, PLAIN], {"purpose": "batch"}, "file"),
        ([("document", ("a", b"x"))], {"purpose": "batch"}, "document"),
        ([("other", ("a", b"x")), PLAIN], {"purpose": "batch"}, "other"),
        ([("file", ("a", b""))], {"purpose": "batch"}, "file"),
        ([PLAIN], {"purpose": "batch", "expires_after[seconds]": "3600"}, "expires_after[seconds]"),
        ([], {"purpose": "batch", "file": "text"}, "file"),
        ([], {"purpose": "batch"}, "file"),
    ],
)
def test_a_form_that_cannot_be_right_names_its_field_and_leaves_nothing(
    gateway: TestClient, settings: Settings, files: list[Any], data: dict[str, Any], param: str
) -> None:
    answer = gateway.post("/v1/files", files=files, data=data)
    assert len(refused(answer, param)["message"]) < 300
    assert stored(settings) == []
    assert gateway.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"purpose": "batch"}'),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"garbage"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
        ("", b""),
    ],
)
def test_what_is_no_form_is_refused_in_the_envelope(
    gateway: TestClient, settings: Settings, content_type: str, body: bytes
) -> None:
    answer = gateway.post("/v1/files", content=body, headers={"content-type": content_type})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == ERROR_KEYS
    assert stored(settings) == []


FORM = {"content-type": "multipart/form-data; boundary=b"}


def form_of(name: str) -> bytes:
    """An upload whose file bears any name; clients would quote some of them."""
    quoted = name.replace("\\", "\\\\").encode()
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + quoted + b'"\r\n\r\nx\r\n'
    return head + b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n'


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("n" * 4_000, "n" * 255),
        ("tab\tand\x01control.jsonl", "tabandcontrol.jsonl"),
        ("Übung.jsonl", "Übung.jsonl"),
    ],
)
def test_a_file_bears_a_clean_base_name(
    gateway: TestClient, client: openai.OpenAI, settings: Settings, name: str, kept: str
) -> None:
    answer = gateway.post("/v1/files", content=form_of(name), headers=FORM)
    assert answer.json()["filename"] == kept
    assert client.files.retrieve(answer.json()["id"]).filename == kept
    assert [path.name for path in stored(settings)] == [answer.json()["id"]]


def test_a_name_too_long_for_a_forms_header_is_refused(gateway: TestClient, settings: Settings) -> None:
    refused(gateway.post("/v1/files", content=form_of("n" * 10_000), headers=FORM), None)
    assert stored(settings) == []


@pytest.mark.parametrize("path", ["file-none", "..", "%2e%2e%2fstate.db", "..%2f..%2fetc%2fpasswd", "a%00b", "%ff"])
def test_ids_that_are_none_lead_nowhere(gateway: TestClient, path: str) -> None:
    for method, end in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = gateway.request(method, f"/v1/files/{path}{end}")
        assert answer.status_code in (404, 405), (path, answer.text)
        assert set(answer.json()["error"]) == ERROR_KEYS


@pytest.fixture
def small(gateway: TestClient, settings: Settings) -> Iterator[TestClient]:
    """A gateway that takes files of 1,000 bytes and 1,500 a project."""
    limits = with_limits(settings, max_upload_bytes=1000, project_quota_bytes=1500)
    with TestClient(create_app(limits), "http://127.0.0.1", raise_server_exceptions=False) as opened:
        yield opened


def send(client: TestClient, data: bytes, **options: Any) -> Any:
    return client.post("/v1/files", files={"file": ("a", data)}, data={"purpose": "batch"}, **options)


def test_an_upload_over_the_limit_leaves_nothing(small: TestClient, settings: Settings) -> None:
    assert "server.max_upload_bytes" in refused(send(small, b"x" * 1001), "file")["message"]
    error = refused(send(small, b"x" * 3 * 1024**2), "file", 413)
    assert error["code"] == "body_too_large"
    assert small.get("/v1/files").json()["data"] == []
    assert stored(settings) == []


def test_an_upload_over_the_quota_is_told_used_asked_and_allowed(small: TestClient, settings: Settings) -> None:
    kept = send(small, b"x" * 900).json()["id"]
    error = refused(send(small, b"y" * 601), "file")
    assert error["code"] == "quota_exceeded"
    for part in ("900", "601", "1,500", "delete files", "server.project_quota_bytes"):
        assert part in error["message"]
    assert [path.name for path in stored(settings)] == [kept]
    again = send(small, b"x" * 900)  # the same contents take no more space
    assert again.status_code == 200
    assert len({path.stat().st_ino for path in stored(settings)}) == 1
    assert small.get(f"/v1/files/{again.json()['id']}/content").content == b"x" * 900


def test_a_projects_files_count_in_it_alone(small: TestClient, state: State, admin: Caller) -> None:
    with state.session() as session:
        session.add(Project(id="proj_b", name="b", created_at=0, archived_at=None))
    keys = KeyStore(state)
    mine, theirs = (
        {"authorization": f"Bearer {keys.create(project, 'k', role='admin').secret}"}
        for project in (admin.project_id, "proj_b")
    )
    assert send(small, b"x" * 1000, headers=mine).status_code == 200
    answer = send(small, b"x" * 1000, headers=theirs)
    assert answer.status_code == 200
    refused(small.get(f"/v1/files/{answer.json()['id']}", headers=mine), "id", 404)
    refused(small.get("/v1/files", params={"after": answer.json()["id"]}, headers=mine), "after", 404)


def test_result_files_that_we_wrote_are_listed_and_downloaded(
    client: openai.OpenAI, settings: Settings, state: State, admin: Caller
) -> None:
    row = FileStore(settings, state).add(
        [b"step,train_loss\n1,2.5\n"],
        filename="step_metrics.csv",
        purpose=FINE_TUNE_RESULTS,
        project_id=admin.project_id,
    )
    assert [file.id for file in client.files.list(purpose=FINE_TUNE_RESULTS)] == [row.id]
    assert client.files.retrieve(row.id).purpose == FINE_TUNE_RESULTS
    assert client.files.content(row.id).text == "step,train_loss\n1,2.5\n"
