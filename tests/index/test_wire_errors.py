"""Errors come out of the index server as what they were."""

import pytest

from index import wire
from index.milvus.client import LostCollectionError
from local_llm import errors
from local_llm.errors import LocalLLMError, UnavailableError


@pytest.mark.parametrize("kind", wire._ERRORS.values(), ids=lambda kind: kind.__name__)
def test_every_error_keeps_its_class_its_words_and_its_hint(kind: type[LocalLLMError]) -> None:
    came = wire.error_from_json(wire.error_to_json(kind("what happened", hint="what mends it", param="where")))
    assert (type(came), came.message, came.hint, came.param) == (kind, "what happened", "what mends it", "where")


def test_when_to_come_back_is_kept_and_a_class_of_the_index_becomes_the_one_above_it() -> None:
    told = LostCollectionError("gone", hint="wait", retry_after_seconds=10)
    came = wire.error_from_json(wire.error_to_json(told))
    assert type(came) is UnavailableError
    assert (came.status, came.retry_after_seconds) == (503, 10)


def test_all_errors_but_one_are_known() -> None:
    every = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LocalLLMError)}
    assert every - set(wire._ERRORS.values()) == {errors.TrainingDataError}
