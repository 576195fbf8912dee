"""Whatever is sent, by our own OpenAPI document or against it: an answer in the envelope, and never 500."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from local_llm.profiles import Profile, ProfileStore
from serving.api_document import BODIES, RELAYED

from .conftest import BASE
from .real_gateway import engine_at, serving
from .slow_engine import SlowEngine
from .vector_store_world import World, index_server, running_gateway

schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")

from schemathesis.generation import GenerationMode  # noqa: E402

EXAMPLES = 15


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        running_gateway(tmp_path_factory.mktemp("world")) as made,
        index_server(made),
        engine_at(made.settings.place.socket("engine"), SlowEngine().answer),
    ):
        yield made


@pytest.fixture(scope="module")
def url(world: World) -> Iterator[str]:
    """Of the same box on a real socket: what the server below the gateway makes of it counts too."""
    with serving(world.settings) as made:
        yield made.url


@pytest.fixture(scope="module")
def known(world: World) -> dict[str, str]:
    """Ids that exist, by the name of the parameter that takes them."""
    client = world.client()
    upload = client.files.create(file=("a.md", b"# A\n\nScrews are in the drawer.\n"), purpose="assistants")
    store = client.vector_stores.create(name="kb", file_ids=[upload.id])
    batch = client.vector_stores.file_batches.create(store.id, file_ids=[upload.id])
    deadline = time.monotonic() + 60
    while client.vector_stores.retrieve(store.id).file_counts.in_progress:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ProfileStore(world.state).set(world.admin, Profile("help", "rag", collection="kb"))
    return {
        "file_id": upload.id,
        "store_id": store.id,
        "batch_id": batch.id,
        "name": "help",
        "collection": store.id,
        "response_id": client.responses.create(model=BASE, input="Hi").id,
        "project_id": world.admin.project_id,
    }


@pytest.fixture(scope="module")
def document(world: World) -> Any:
    return schemathesis.openapi.from_dict(world.gateway.get("/openapi.json").json())


def operations(document: Any) -> list[Any]:
    return [result.ok() for result in document.get_all_operations()]


def test_the_document_has_every_route_and_what_is_sent_to_it(world: World) -> None:
    paths = world.gateway.get("/openapi.json").json()["paths"]
    assert set(RELAYED) <= set(paths)
    for method, path in BODIES:
        assert "requestBody" in paths[path][method], (method, path)
    without = {path for path, there in paths.items() if "post" in there and "requestBody" not in there["post"]}
    bare = ("cancel", "pause", "resume", "archive")
    assert [path for path in without if path.rsplit("/", 1)[1] not in bare] == []


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_makes_the_server_fail(
    world: World, document: Any, url: str, known: dict[str, str], mode: Any, figures: dict[str, object]
) -> None:
    headers = {"authorization": f"Bearer {world.secrets['owner']}"}
    asked = 0
    statuses: Counter[int] = Counter()
    failed: list[str] = []
    for operation in operations(document):

        def ask(case: Any) -> None:
            nonlocal asked
            if asked % 3 and case.method != "DELETE":  # ids that exist lead further in
                case.path_parameters = {
                    name: known.get(name, value) for name, value in (case.path_parameters or {}).items()
                }
            asked += 1
            answer = case.call(base_url=url, headers=headers, timeout=60)
            statuses[answer.status_code] += 1
            if answer.status_code >= 500 and answer.status_code not in (503, 507):
                failed.append(f"{answer.status_code} {case.as_curl_command()} {answer.text[:300]}")
            elif answer.status_code >= 400 and case.method != "HEAD":
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, answer.text

        limits = settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        with suppress(Unsatisfiable):  # where nothing is sent, nothing can be wrong
            limits(given(case=operation.as_strategy(generation_mode=mode))(ask))()
    figures[f"fuzzed, {mode.value}"] = dict(sorted(statuses.items()))
    assert failed == []
    assert asked > 100
