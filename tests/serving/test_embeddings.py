"""/v1/embeddings through the real client: our encoder's vectors, and a clear no to what it cannot read."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from tokenizers import Tokenizer

from index.service import IndexService
from local_llm.embedded import ENCODER, locate

from .vector_store_world import World, index_server, running_gateway

MODEL = ENCODER.name
DIMENSION = 384


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_gateway(
        tmp_path_factory.mktemp("world"), embedding_aliases={"text-embedding-3-small": MODEL}
    ) as made:
        yield made


@pytest.fixture(scope="module")
def service(world: World) -> Iterator[IndexService]:
    with index_server(world) as made:
        yield made


@pytest.fixture
def client(world: World, service: IndexService) -> openai.OpenAI:
    return world.client()


def test_vectors_are_those_of_the_encoder_in_order_in_both_formats(
    client: openai.OpenAI, service: IndexService
) -> None:
    texts = ["The battery charges.", "A much longer text about returned goods. " * 20, "x"]
    encoder = service.encoder()
    expected = encoder.encode_documents(texts)
    for format_ in ({}, {"encoding_format": "float"}):
        answer = client.embeddings.create(model=MODEL, input=texts, **format_)  # type: ignore[arg-type]
        assert (answer.object, answer.model, [one.index for one in answer.data]) == ("list", MODEL, [0, 1, 2])
        np.testing.assert_allclose([one.embedding for one in answer.data], expected, atol=1e-5)
    assert answer.usage.prompt_tokens == sum(encoder.count_tokens(text) for text in texts)
    assert client.embeddings.create(model=MODEL, input=texts[0], dimensions=DIMENSION).data[0].embedding


def test_token_ids_of_our_tokenizer_stand_for_their_text(client: openai.OpenAI) -> None:
    text = "the battery charges in four hours."
    tokenizer = Tokenizer.from_file(str(locate(ENCODER) / "tokenizer.json"))
    tokenizer.no_padding()
    bare, whole = (list(tokenizer.encode(text, add_special_tokens=one).ids) for one in (False, True))
    expected = client.embeddings.create(model=MODEL, input=text).data[0].embedding
    assert len(whole) > len(bare)
    for ids in (bare, whole):
        for given in (ids, [ids, ids]):
            for one in client.embeddings.create(model=MODEL, input=given).data:
                np.testing.assert_allclose(one.embedding, expected, atol=1e-5)


def test_an_input_longer_than_the_encoder_reads_is_cut_and_told(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input=["word " * 1000, "short"])
    assert (answer.model_extra or {})["truncated"] == 1
    assert answer.usage.prompt_tokens < 300


def test_hosted_names_stand_for_an_encoder_only_where_that_is_set(client: openai.OpenAI) -> None:
    assert client.embeddings.create(model="text-embedding-3-small", input="x").model == MODEL
    for name in ("text-embedding-3-large", "gpt-4o-mini"):
        with pytest.raises(openai.NotFoundError, match=name):
            client.embeddings.create(model=name, input="x")


# "Hello world, this is a battery of tests" in cl100k_base: what LangChain sends for hosted models.
FOREIGN_IDS = [9906, 1917, 11, 420, 374, 264, 11863, 315, 7177]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": "  "}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": FOREIGN_IDS}, "input"),
        ({"input": [[10**9]]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": 100}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "input_type": "song"}, "input_type"),
        ({"input": "a", "colour": 1}, "colour"),
        ({}, "input"),
    ],
)
def test_what_cannot_be_encoded_is_refused_by_field(
    client: openai.OpenAI, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/embeddings", body={"model": MODEL, **more}, cast_to=object)
    assert caught.value.param == param


def test_ids_of_another_tokenizer_are_told_to_send_strings(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="send strings"):
        client.embeddings.create(model=MODEL, input=FOREIGN_IDS)


def test_their_tokens_are_counted_by_model(client: openai.OpenAI, world: World) -> None:
    def counted() -> float:
        text = world.gateway.get("/metrics", headers={"authorization": f"Bearer {world.secrets['owner']}"}).text
        line = f'local_llm_tokens_total{{kind="input",model="{MODEL}",process="0"}} '
        return float((text.partition(line)[2] or "0").split()[0])

    before = counted()
    answer = client.embeddings.create(model=MODEL, input="The battery charges.")
    assert counted() == before + answer.usage.prompt_tokens
