"""file_search of /v1/responses: found here, put before the question, cited as the client reads it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import VectorStore

from index.service import IndexService
from local_llm.identifiers import new_id
from local_llm.profiles import Profile, ProfileStore

from .conftest import BASE
from .recording_engine import SmallEngine, running
from .replies import Reply
from .vector_store_world import URL, World, index_server, running_gateway

PAGE = Path(__file__).parents[2] / "docs" / "responses.md"
BATTERY = b"# Battery\n\nThe battery charges in four hours from a wall socket.\n"
RETURNS = b"# Returns\n\nGoods can be returned within thirty days of purchase.\n"
CHARGES = "The battery charges in four hours."
QUESTION = "How long does the battery take to charge?"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_gateway(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module")
def service(world: World) -> Iterator[IndexService]:
    with index_server(world) as made:
        yield made


@pytest.fixture(scope="module")
def small_engine(world: World) -> Iterator[SmallEngine]:
    engine = SmallEngine()
    with running(engine, world.settings.place.ensure().socket("engine")):
        yield engine


@pytest.fixture
def engine(small_engine: SmallEngine) -> SmallEngine:
    small_engine.asked.clear()
    small_engine.reply = Reply(f"Well. {CHARGES} Bye.")
    return small_engine


@pytest.fixture
def client(world: World, service: IndexService) -> openai.OpenAI:
    return world.client()


def store_of(client: openai.OpenAI, *files: tuple[str, bytes], **more: Any) -> VectorStore:
    store = client.vector_stores.create(name=new_id("store-"))
    for file in files:
        attached = client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=file, **more)
        assert attached.status == "completed"
    return store


@pytest.fixture
def store(client: openai.OpenAI) -> VectorStore:
    return store_of(client, ("battery.md", BATTERY), ("returns.md", RETURNS))


def search(*stores: VectorStore, **more: Any) -> list[Any]:
    return [{"type": "file_search", "vector_store_ids": [store.id for store in stores], **more}]


def prompt(engine: SmallEngine) -> str:
    return engine.asked[-1][1]["messages"][-1]["content"]


def test_what_is_found_is_read_and_cited(client: openai.OpenAI, engine: SmallEngine, store: VectorStore) -> None:
    response = client.responses.create(
        model=BASE, input=QUESTION, tools=search(store, max_num_results=1), include=["file_search_call.results"]
    )
    call, message = response.output
    assert (call.type, call.status, call.queries) == ("file_search_call", "completed", [QUESTION])
    (result,) = call.results
    assert (result.filename, "four hours" in result.text, 0 < result.score <= 1) == ("battery.md", True, True)
    assert client.responses.retrieve(response.id).output[0].results is None
    again = client.responses.retrieve(response.id, include=["file_search_call.results"])
    assert again.output[0].results == call.results
    assert "four hours" in prompt(engine)
    assert "thirty days" not in prompt(engine)

    text = message.content[0].text
    assert text == f"Well. {CHARGES} [1] Bye."
    (citation,) = message.content[0].annotations
    assert (citation.type, citation.filename, citation.file_id) == ("file_citation", "battery.md", result.file_id)
    assert text[: citation.index].endswith("in four hours.")  # where it stands in the text
    assert (citation.number, citation.version, citation.page) == (1, 1, None)
    assert citation.quote == BATTERY.decode()[citation.start : citation.end]
    assert "four hours" in citation.quote
    assert citation.url.startswith(f"{URL}/passages/")


def test_a_stream_tells_the_same_search_and_citations(
    client: openai.OpenAI, engine: SmallEngine, store: VectorStore
) -> None:
    request: dict[str, Any] = {"model": BASE, "input": QUESTION, "tools": search(store)}
    whole = client.responses.create(**request)
    with client.responses.stream(**request) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:7] == [
        "created", "in_progress", "output_item.added", "file_search_call.in_progress", "file_search_call.searching",
        "file_search_call.completed", "output_item.done",
    ]  # fmt: skip
    assert kinds[-5:] == [
        "output_text.annotation.added", "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    (told,) = [event.annotation for event in events if event.type == "response.output_text.annotation.added"]
    assert final.output_text == whole.output_text
    assert told == whole.output[1].content[0].annotations[0].to_dict()
    assert final.output[1].content[0].annotations[0].to_dict() == told
    assert (final.output[0].queries, final.output[0].results) == ([QUESTION], None)
    assert client.responses.retrieve(whole.id).output[1].to_dict() == whole.output[1].to_dict()


def test_several_stores_are_one_ranking(client: openai.OpenAI, engine: SmallEngine) -> None:
    stores = [store_of(client, ("battery.md", BATTERY)), store_of(client, ("returns.md", RETURNS))]
    for question, first in (
        (QUESTION, "battery.md"),
        ("Within how many days can goods be returned?", "returns.md"),
    ):
        for order in (stores, stores[::-1]):
            response = client.responses.create(
                model=BASE, input=question, tools=search(*order), include=["file_search_call.results"]
            )
            names = [result.filename for result in response.output[0].results]
            assert (names[0], sorted(names)) == (first, ["battery.md", "returns.md"])
    only = client.responses.create(
        model=BASE, input=QUESTION, tools=search(*stores, max_num_results=1), include=["file_search_call.results"]
    )
    assert [result.filename for result in only.output[0].results] == ["battery.md"]


def test_filters_and_a_least_score_hold(client: openai.OpenAI, engine: SmallEngine) -> None:
    store = store_of(client, ("battery.md", BATTERY), attributes={"year": 2020})
    newer = {"type": "gte", "key": "year", "value": 2025}
    for narrowed in ({"filters": newer}, {"ranking_options": {"score_threshold": 0.99}}):
        response = client.responses.create(
            model=BASE, input=QUESTION, tools=search(store, **narrowed), include=["file_search_call.results"]
        )
        assert response.output[0].results == []
        assert response.output[1].content[0].annotations == []
        assert prompt(engine) == QUESTION


def test_what_a_caller_may_not_see_is_neither_found_nor_cited(
    world: World, client: openai.OpenAI, engine: SmallEngine
) -> None:
    store = store_of(client, ("battery.md", BATTERY))
    (file,) = client.vector_stores.files.list(store.id)
    client.vector_stores.files.update(
        file.id, vector_store_id=store.id, attributes={}, extra_body={"allow": ["user:ana"]}
    )
    request: dict[str, Any] = {
        "model": BASE, "input": QUESTION, "tools": search(store), "include": ["file_search_call.results"],
    }  # fmt: skip
    seen = world.client("ana").responses.create(**request)
    assert [result.filename for result in seen.output[0].results] == ["battery.md"]
    hidden = world.client("bob").responses.create(**request)
    assert hidden.output[0].results == []
    assert "four hours from" not in prompt(engine)
    with pytest.raises(openai.NotFoundError):
        world.client("bob").responses.retrieve(seen.id)
    # What was answered stays as it was said, when permissions change later.
    client.vector_stores.files.update(
        file.id, vector_store_id=store.id, attributes={}, extra_body={"allow": ["user:bob"]}
    )
    assert world.client("ana").responses.retrieve(seen.id).output_text == seen.output_text


def test_a_profile_that_retrieves_is_cited_too(
    world: World, client: openai.OpenAI, engine: SmallEngine, store: VectorStore
) -> None:
    other = store_of(client, ("returns.md", RETURNS))
    ProfileStore(world.state).set(
        world.admin, Profile("help", "rag", collection=store.id, prompt="Only from here:")
    )
    response = client.responses.create(model="help", input=QUESTION)
    (message,) = response.output
    assert [one.filename for one in message.content[0].annotations] == ["battery.md"]
    assert prompt(engine).startswith("Only from here:")
    # What a request asks to be searched is searched instead.
    response = client.responses.create(
        model="help", input=QUESTION, tools=search(other), include=["file_search_call.results"]
    )
    assert [result.filename for result in response.output[0].results] == ["returns.md"]
    assert prompt(engine).startswith("Only from here:")


def test_no_search_where_the_choice_is_another(
    client: openai.OpenAI, engine: SmallEngine, store: VectorStore
) -> None:
    function = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
    tools = [*search(store), function]
    searches = (
        {"type": "file_search"},
        "auto",
        "required",
        {"type": "allowed_tools", "mode": "auto", "tools": tools[:1]},
    )
    for choice in searches:
        response = client.responses.create(model=BASE, input=QUESTION, tools=tools, tool_choice=choice)
        assert response.output[0].type == "file_search_call"
    others = (
        "none",
        {"type": "function", "name": "f"},
        {"type": "allowed_tools", "mode": "auto", "tools": tools[1:]},
    )
    for choice in others:
        response = client.responses.create(model=BASE, input=QUESTION, tools=tools, tool_choice=choice)
        assert [item.type for item in response.output] == ["message"]
        assert prompt(engine) == QUESTION


def test_json_carries_no_markers(client: openai.OpenAI, engine: SmallEngine, store: VectorStore) -> None:
    engine.reply = Reply('{"answer": "The battery charges in four hours."}')
    response = client.responses.create(
        model=BASE, input=QUESTION, tools=search(store), text={"format": {"type": "json_object"}}
    )
    assert response.output_text == engine.reply.text


@pytest.mark.parametrize(
    ("tool", "status", "param"),
    [
        ({"vector_store_ids": ["vs_nope"]}, 404, "tools"),
        ({"filters": {"type": "sounds_like", "key": "a", "value": 1}}, 400, "tools"),
        ({"max_num_results": 51}, 400, "tools.0.max_num_results"),
        ({"ranking_options": {"ranker": "best"}}, 400, "tools.0.ranking_options.ranker"),
    ],
)
def test_a_wrong_search_is_told(
    client: openai.OpenAI, engine: SmallEngine, store: VectorStore, tool: dict, status: int, param: str
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as refusal:
            client.responses.create(model=BASE, input=QUESTION, tools=[{**search(store)[0], **tool}], stream=stream)
        assert (refusal.value.status_code, refusal.value.param) == (status, param)


def test_a_search_needs_a_question(client: openai.OpenAI, engine: SmallEngine, store: VectorStore) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.create(model=BASE, input=[{"role": "system", "content": "Hi"}], tools=search(store))
    assert refusal.value.param == "input"


def test_the_page_of_the_documents_works_as_printed(
    client: openai.OpenAI, engine: SmallEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    made = "client = OpenAI()\n"
    assert made in snippet
    exec(snippet.replace(made, ""), {"client": client})
    out = capsys.readouterr().out
    assert "Well. The battery charges in four hours. [1] Bye." in out
    assert "battery.md 40 11 64 The battery charges in four hours from a wall socket. http" in out
