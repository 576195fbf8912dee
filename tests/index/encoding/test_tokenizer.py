"""Token ids in place of strings: ours are understood, others refused; and what is cut is told."""

from pathlib import Path

import pytest

from index.encoding.encoder import Encoder
from local_llm.embedded import ENCODER
from local_llm.errors import InvalidInputError


@pytest.fixture(scope="module")
def encoder(home: Path) -> Encoder:
    return Encoder(home / "models" / ENCODER.name, "cpu")


@pytest.mark.parametrize("text", ["the mill stands by the river", "unbelievably long-winded!", "12 % of x"])
def test_our_own_token_ids_come_back_as_their_text(encoder: Encoder, text: str) -> None:
    ids = encoder.token_ids(text)
    assert encoder.token_ids(encoder.text_of_token_ids(ids)) == ids


def test_ids_with_the_special_tokens_around_them_are_ours_too(encoder: Encoder) -> None:
    ids = encoder.token_ids("the mill")
    assert encoder.text_of_token_ids([101, *ids, 102]) == "the mill"


@pytest.mark.parametrize("ids", [[], [-1], [30522], [1996, 99_999_999], [3, 4, 5], [2050, 2050]])
def test_ids_that_our_tokenizer_would_not_give_are_refused(encoder: Encoder, ids: list[int]) -> None:
    assert encoder.vocabulary_size == 30522
    with pytest.raises(InvalidInputError, match="token ids of another tokenizer; send strings"):
        encoder.text_of_token_ids(ids)


def test_texts_longer_than_the_encoder_reads_are_counted(encoder: Encoder) -> None:
    fits, longer = "x " * encoder.max_tokens, "x " * (encoder.max_tokens + 1)
    found = encoder.encode([fits, longer, "short"], "document")
    assert found.truncated == 1
    assert found.tokens == [256, 256, 3]


def test_no_texts_are_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode_documents([]).shape == (0, 384)
