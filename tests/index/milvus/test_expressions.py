"""What Milvus is told to leave out is what the filter leaves out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.milvus.expressions import expressions


def admits(expression: str, document: int) -> bool:
    """These expressions mean in Python what they mean in Milvus."""
    return not expression or bool(eval(expression, {"document": document}))


@settings(deadline=None)
@given(bits=st.lists(st.booleans(), max_size=40), most=st.integers(1, 12))
def test_every_document_passes_one_expression_if_it_is_allowed_and_none_if_not(bits: list[bool], most: int) -> None:
    allowed = np.array(bits, np.bool_)
    told = list(expressions(allowed, most))
    for document in range(len(bits) + 5):
        expected = int(document < len(bits) and bits[document])
        assert sum(admits(one, document) for one in told) == expected, told


def test_no_filter_is_one_empty_expression() -> None:
    assert list(expressions(None)) == [""]


def test_where_nothing_is_allowed_milvus_is_not_asked() -> None:
    assert list(expressions(np.zeros(20, np.bool_))) == []
    assert list(expressions(np.zeros(0, np.bool_))) == []


@pytest.mark.parametrize(("share", "word"), [(0.1, "document in"), (0.9, "document not in")])
def test_the_rarer_kind_is_named(share: float, word: str) -> None:
    allowed = np.random.default_rng(0).random(1000) < share
    (told,) = expressions(allowed)
    assert word in told
    assert told.count(",") < 200
