"""A collection as LlamaIndex uses it, over the index itself and over its server's socket."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    NodeRelationship,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from index.client import IndexClient
from index.ingestion.ingest import find_sources
from index.interface import Index
from index.llama_index.embedding import EncodedByCollection
from index.llama_index.retriever import CollectionRetriever
from index.llama_index.vector_store import CollectionVectorStore
from index.server import listening, make_server
from index.service import IndexService
from local_llm.errors import ForbiddenError, InvalidInputError, NotFoundError
from local_llm.identifiers import new_id
from local_llm.permissions import Caller

Write = Callable[[str, str], Path]

AXES = {"east": [1.0, 0.0], "north": [0.0, 3.0], "north-east": [2.0, 2.0]}


@pytest.fixture(scope="module")
def socket_path(service: IndexService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real server around the session's own service, in a thread."""
    path = tmp_path_factory.mktemp("run") / "index.sock"
    server = make_server(service)
    with listening(path) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield path
        server.should_exit = True
        thread.join()


@pytest.fixture(params=["alone", "through the server"])
def index(request: pytest.FixtureRequest, service: IndexService, socket_path: Path) -> Iterator[Index]:
    if request.param == "alone":
        yield service
        return
    with IndexClient(socket_path) as client:
        yield client


@pytest.fixture
def store(index: Index, admin: Caller, collection: str) -> CollectionVectorStore:
    return CollectionVectorStore(index, admin, collection)


@pytest.fixture
def vector_store(index: Index, admin: Caller) -> CollectionVectorStore:
    """Of a collection whose records bring vectors of two numbers."""
    return CollectionVectorStore(index, admin, index.create(admin, new_id("test-"), dimension=2).name)


def fruit(name: str, document: str = "fruits", **metadata: Any) -> TextNode:
    source = RelatedNodeInfo(node_id=document)
    return TextNode(
        id_=name,
        text=f"The {name} is a fruit.",
        metadata=metadata,
        relationships={NodeRelationship.SOURCE: source},
    )


FRUITS = [fruit("apple", colour="red", grams=150), fruit("pear", colour="green", grams=180), fruit("fig", grams=50)]


def ids(nodes: list[BaseNode]) -> list[str]:
    return [node.node_id for node in nodes]


def where(key: str, operator: str, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])


def test_nodes_come_back_equal(store: CollectionVectorStore) -> None:
    metadata = {
        "tags": ["a", "b"],
        "none": None,
        "nested": {"page": [1, {"x": 2.5}]},
        "number": 2**60,
        "flag": True,
        "umlaut": "ä\u2028",
        "title": "mine",
        "_node_id": "mine too",
    }
    node = fruit("quince", **metadata)
    node.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id="medlar", metadata={"a": 1})
    node.excluded_llm_metadata_keys = ["tags"]
    node.start_char_idx, node.end_char_idx = 3, 25
    windows = TextNode(id_="windows", text="one\r\ntwo\0\r")
    image = ImageNode(id_="picture", text="a picture of a fig", image="aGVsbG8=")
    pointer = IndexNode(id_="pointer", text="look elsewhere", index_id="other")
    nodes = [node, windows, image, pointer]
    assert store.add(nodes) == ids(nodes)
    found = store.get_nodes()
    assert [one.to_dict() for one in found] == [one.to_dict() for one in nodes]
    assert [type(one) for one in found] == [type(one) for one in nodes]
    [best] = store.query(VectorStoreQuery(query_str="quince", similarity_top_k=1)).nodes
    assert best.to_dict() == node.to_dict()
    assert best.ref_doc_id == "fruits"


def test_the_collection_encodes_what_it_is_asked_and_given(store: CollectionVectorStore) -> None:
    assert (store.stores_text, store.is_embedding_query) == (True, False)
    store.add(FRUITS)
    result = store.query(VectorStoreQuery(query_str="a pear", similarity_top_k=2))
    assert result.ids[0] == "pear"
    assert ids(result.nodes) == result.ids
    assert result.similarities[0] > result.similarities[1]
    with pytest.raises(InvalidInputError, match="query_str"):
        store.query(VectorStoreQuery(query_embedding=[1.0, 0.0]))


def test_vectors_of_ones_own_are_searched_by_vector(vector_store: CollectionVectorStore) -> None:
    assert vector_store.is_embedding_query
    vector_store.add([TextNode(id_=name, text=name, embedding=vector) for name, vector in AXES.items()])
    result = vector_store.query(VectorStoreQuery(query_embedding=[0.1, 1.0], similarity_top_k=3))
    assert result.ids == ["north", "north-east", "east"]
    assert result.similarities[0] == pytest.approx(1 / 1.01**0.5, abs=1e-6)  # cosine of (0, 3) and (0.1, 1)
    with pytest.raises(InvalidInputError, match="query_embedding"):
        vector_store.query(VectorStoreQuery(query_str="north"))
    with pytest.raises(InvalidInputError, match="bare"):
        vector_store.add([TextNode(id_="bare", text="no vector")])


def test_adding_a_node_again_replaces_it(store: CollectionVectorStore) -> None:
    store.add(FRUITS)
    store.add([fruit("apple", colour="yellow")])
    assert len(store.get_nodes()) == 3
    assert store.get_nodes(["apple"])[0].metadata == {"colour": "yellow"}


@pytest.mark.parametrize(
    ("operator", "key", "value", "expected"),
    [
        ("==", "colour", "red", {"apple"}),
        ("!=", "colour", "red", {"pear", "fig"}),
        (">", "grams", 150, {"pear"}),
        (">=", "grams", 150, {"apple", "pear"}),
        ("<", "grams", 150.0, {"fig"}),
        ("<=", "grams", 150, {"apple", "fig"}),
        ("in", "colour", ["red", "green"], {"apple", "pear"}),
        ("nin", "grams", [50, 150], {"pear"}),
    ],
)
def test_filters_hold_in_search_and_listing(
    store: CollectionVectorStore, operator: str, key: str, value: Any, expected: set[str]
) -> None:
    store.add(FRUITS)
    filters = where(key, operator, value)
    assert set(ids(store.get_nodes(filters=filters))) == expected
    assert (
        set(store.query(VectorStoreQuery(query_str="fruit", similarity_top_k=9, filters=filters)).ids) == expected
    )


def test_filters_nest(store: CollectionVectorStore) -> None:
    store.add(FRUITS)
    red_or_light = MetadataFilters(
        filters=[*where("colour", "==", "red").filters, where("grams", "<", 100)], condition="or"
    )
    both = MetadataFilters(filters=[red_or_light, MetadataFilters(filters=[]), where("grams", "!=", 50)])
    assert set(ids(store.get_nodes(filters=red_or_light))) == {"apple", "fig"}
    assert ids(store.get_nodes(filters=both)) == ["apple"]


@pytest.mark.parametrize("operator", ["any", "all", "text_match", "text_match_insensitive", "contains", "is_empty"])
def test_an_unknown_operator_is_refused_not_ignored(store: CollectionVectorStore, operator: str) -> None:
    with pytest.raises(InvalidInputError, match=f"operator '{operator}'.*'colour'"):
        store.get_nodes(filters=where("colour", operator, "red"))


def test_what_cannot_be_asked_is_refused_not_ignored(store: CollectionVectorStore) -> None:
    with pytest.raises(InvalidInputError, match="condition 'not'"):
        store.get_nodes(filters=MetadataFilters(filters=where("a", "==", 1).filters, condition="not"))
    with pytest.raises(InvalidInputError, match="value"):
        store.get_nodes(filters=where("colour", "==", None))
    with pytest.raises(InvalidInputError, match="no text"):
        store.add([*FRUITS, ImageNode(id_="picture", image="aGVsbG8=")])
    assert store.get_nodes() == []
    with pytest.raises(InvalidInputError, match="'hybrid'"):
        store.query(VectorStoreQuery(query_str="fig", mode=VectorStoreQueryMode.HYBRID))


def test_search_keeps_to_the_nodes_and_documents_named(store: CollectionVectorStore) -> None:
    store.add([*FRUITS, fruit("plum", document="stone fruits")])

    def found(**restriction: list[str]) -> set[str]:
        return set(store.query(VectorStoreQuery(query_str="fruit", similarity_top_k=9, **restriction)).ids)

    assert found(node_ids=["pear", "plum"]) == {"pear", "plum"}
    assert found(doc_ids=["stone fruits"]) == {"plum"}
    assert found(doc_ids=["fruits"], node_ids=["plum", "fig"]) == {"fig"}
    assert found(doc_ids=[], node_ids=[]) == {"apple", "pear", "fig", "plum"}


def test_deleted_nodes_are_never_found(store: CollectionVectorStore) -> None:
    store.add([*FRUITS, fruit("plum", document="stone fruits")])
    store.delete("no such document")
    store.delete("stone fruits")
    assert ids(store.get_nodes()) == ["apple", "pear", "fig"]
    store.delete_nodes(["apple", "pear", "never there"], where("colour", "==", "red"))
    store.delete_nodes([])
    assert ids(store.get_nodes()) == ["pear", "fig"]
    with pytest.raises(InvalidInputError, match="neither"):
        store.delete_nodes()
    assert set(store.query(VectorStoreQuery(query_str="apple plum", similarity_top_k=9)).ids) == {"pear", "fig"}
    store.clear()
    assert store.get_nodes() == []
    assert store.query(VectorStoreQuery(query_str="fig", similarity_top_k=9)).nodes == []


def test_the_async_methods_do_the_same(store: CollectionVectorStore) -> None:
    async def use() -> None:
        assert await store.async_add(FRUITS) == ["apple", "pear", "fig"]
        assert ids(await store.aget_nodes(["fig"])) == ["fig"]
        assert (await store.aquery(VectorStoreQuery(query_str="pear", similarity_top_k=1))).ids == ["pear"]
        await store.adelete_nodes(["fig"])
        assert len(await store.aget_nodes(filters=where("grams", ">", 0))) == 2
        await store.adelete("fruits")
        await store.async_add(FRUITS[:1])
        await store.aclear()
        assert await store.aget_nodes() == []

    asyncio.run(use())


def test_a_forbidden_node_is_never_returned(
    index: Index, admin: Caller, member: Caller, collection: str, store: CollectionVectorStore
) -> None:
    store.add(FRUITS[:1], allow=["group:finance"])
    store.add(FRUITS[1:])
    mine = CollectionVectorStore(index, member, collection)
    assert set(mine.query(VectorStoreQuery(query_str="apple", similarity_top_k=9)).ids) == {"pear", "fig"}
    assert mine.get_nodes(["apple"]) == []
    with pytest.raises(ForbiddenError, match="apple"):
        mine.add(FRUITS[:1])
    mine.clear()
    assert ids(store.get_nodes()) == ["apple"]
    with pytest.raises(NotFoundError):
        CollectionVectorStore(index, Caller("proj_other", "admin"), collection)


def test_an_index_of_llama_index_encodes_nothing_twice(store: CollectionVectorStore) -> None:
    documents = [
        Document(id_=name, text=f"The {name} is a fruit.", metadata={"name": name}) for name in ("fig", "pear")
    ]
    index = VectorStoreIndex.from_vector_store(store, embed_model=EncodedByCollection())
    for document in documents:
        index.insert(document)
    [best] = index.as_retriever(similarity_top_k=1).retrieve("a pear")
    assert (best.node.ref_doc_id, best.node.metadata) == ("pear", {"name": "pear"})
    assert asyncio.run(index.as_retriever(similarity_top_k=1).aretrieve("a pear"))[0].node == best.node
    index.delete_ref_doc("pear")
    assert [one.node.ref_doc_id for one in index.as_retriever(similarity_top_k=9).retrieve("pear")] == ["fig"]


def test_a_pipeline_of_llama_index_ends_in_the_collection(store: CollectionVectorStore) -> None:
    IngestionPipeline(transformations=[EncodedByCollection()], vector_store=store).run(nodes=FRUITS)
    assert ids(store.get_nodes()) == ["apple", "pear", "fig"]


def test_passages_of_documents_are_retrieved_with_their_citation(
    index: Index, admin: Caller, collection: str, store: CollectionVectorStore, write: Write
) -> None:
    text = "# Battery\n\n## Charging\n\nThe battery charges in four hours.\n"
    write("returns.md", "# Returns\n\nGoods can be returned.\n")
    folder = write("battery.md", text).parent
    index.add(admin, collection, find_sources([folder]), attributes={"page": "an attribute"})
    [best] = CollectionRetriever(store, similarity_top_k=1).retrieve("how long does charging take?")
    citation = best.node.metadata["citation"]
    assert {key: citation[key] for key in ("document", "version", "page", "heading")} == {
        "document": "battery.md",
        "version": 1,
        "page": None,
        "heading": "Battery > Charging",
    }
    assert text[citation["start"] : citation["end"]] == best.node.text == "The battery charges in four hours."
    assert best.node.metadata["page"] == "an attribute"
    assert "start" not in best.node.get_content("llm")
    stored = index.document(admin, collection, best.node.ref_doc_id, citation["version"])
    assert stored.text[best.node.start_char_idx : best.node.end_char_idx] == best.node.text
    assert 0 < best.score <= 1
    filtered = CollectionRetriever(store, filters=where("page", "!=", "an attribute"))
    assert filtered.retrieve("charging") == []
    assert asyncio.run(CollectionRetriever(store).aretrieve("charging"))[0].node.text == best.node.text


def test_a_retriever_embeds_for_collections_that_cannot(vector_store: CollectionVectorStore) -> None:
    vector_store.add([TextNode(id_=name, text=name, embedding=vector) for name, vector in AXES.items()])
    with pytest.raises(InvalidInputError, match="no encoder"):
        CollectionRetriever(vector_store).retrieve("north")
    given = CollectionRetriever(vector_store).retrieve(QueryBundle("", embedding=[0.0, 1.0]))
    assert given[0].node.node_id == "north"
    embedded = CollectionRetriever(vector_store, embed_model=MockEmbedding(embed_dim=2)).retrieve("halves")
    assert embedded[0].node.node_id == "north-east"  # MockEmbedding says (0.5, 0.5) to everything
