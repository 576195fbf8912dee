"""Vector stores and embeddings on the whole server, as it is started."""

import openai
import pytest

pytestmark = pytest.mark.engine

TEXT = b"# Battery\n\nThe battery charges in four hours from a wall socket.\n"


def test_an_uploaded_file_is_found_in_its_store(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="contract")
    batch = client.vector_stores.file_batches.upload_and_poll(store.id, files=[("a.md", TEXT), ("b.xyz", b"?")])
    assert (batch.file_counts.completed, batch.file_counts.failed) == (1, 1)
    hit = client.vector_stores.search(store.id, query="How long does charging take?").data[0]
    assert hit.filename == "a.md"
    client.files.delete(hit.file_id)
    assert client.vector_stores.search(store.id, query="How long does charging take?").data == []
    assert client.vector_stores.delete(store.id).deleted


def test_the_quickstarts_collection_is_a_vector_store(client: openai.OpenAI) -> None:
    names = {store.name: store for store in client.vector_stores.list(limit=100)}
    assert "quillon" in names
    hits = client.vector_stores.search(names["quillon"].id, query="factory reset a scanner").data
    assert "scanner-factory-reset.md" in [hit.filename for hit in hits]


def test_an_encoder_answers_as_an_embedding_model(client: openai.OpenAI) -> None:
    vectors = client.embeddings.create(model="all-MiniLM-L6-v2", input=["charging", "returns"])
    assert [len(one.embedding) for one in vectors.data] == [384, 384]
