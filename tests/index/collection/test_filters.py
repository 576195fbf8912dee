"""Filters mean the same wherever they are judged, and a bad one is refused in words."""

import math
import sqlite3
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.collection.attributes import checked_allow, checked_attributes
from index.collection.catalog import Catalog
from index.collection.database import to_json
from index.collection.documents import VISIBLE
from index.collection.filters import MOST_COMPARISONS, matches, parse_filter
from index.collection.filters import to_json as filter_to_json
from index.collection.scope import Scope
from local_llm.errors import InvalidInputError

KEYS = ("a", "b", 'quo"te', "back\\slash", "ümlaut", "")
NUMBERS = (0, 1, -1, 0.0, 1.0, 0.1, 0.1 + 0.2, 2**53, -(2**53), 5e-324, 1e-310, 1234.5678e10)
SCALARS = (*NUMBERS, True, False, "", "a", "A", "1", "true", "ß", "\x01", "💡", "line\nend")
PRINCIPALS = ("user:ana", "user:ben", "group:support", 'group:"quoted"', "everyone2", "")

scalars = st.sampled_from(SCALARS) | st.floats(-1e15, 1e15) | st.integers(-(2**53), 2**53)
comparisons = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]),
            "key": st.sampled_from(KEYS[:-1]),
            "value": scalars,
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["in", "nin"]),
            "key": st.sampled_from(KEYS[:-1]),
            "value": st.lists(scalars, max_size=4),
        }
    ),
)
filters = st.recursive(
    comparisons,
    lambda inner: st.fixed_dictionaries(
        {"type": st.sampled_from(["and", "or"]), "filters": st.lists(inner, min_size=1, max_size=3)}
    ),
    max_leaves=6,
)
attributes = st.dictionaries(st.sampled_from(KEYS[:-1]), scalars, max_size=4)
allows = st.none() | st.lists(st.sampled_from(PRINCIPALS[:-1]), max_size=3, unique=True)


def column_reader(documents: dict[int, dict[str, Any]]):
    return lambda key: [(number, one[key]) for number, one in documents.items() if key in one]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(allows, attributes), min_size=1, max_size=12), filters, st.data())
def test_columns_judge_as_the_definition_does(documents: list, asked: dict, data: st.DataObject) -> None:
    """Whether an attribute was read when the filter named it, or came in by a later change."""
    principals = data.draw(st.none() | st.lists(st.sampled_from(PRINCIPALS), max_size=3).map(tuple))
    found = parse_filter(asked)
    stored = {2 * at + 1: one for at, one in enumerate(documents)}
    catalog = Catalog(
        [(number, to_json(allow)) for number, (allow, _) in stored.items()],
        column_reader({number: one for number, (_, one) in stored.items()}),
    )
    for _ in range(3):
        mask = catalog.allowed(principals, found)
        scope = Scope(principals, found)
        assert (
            mask is None
            or {number for number, (allow, values) in stored.items() if scope.admits(allow, values)}
            == set(np.flatnonzero(mask).tolist()) & stored.keys()
        )
        change = data.draw(st.sampled_from([*sorted(stored), max(stored) + 5]))
        if change in stored and data.draw(st.booleans()) and len(stored) > 1:
            del stored[change]
            catalog.drop(change)
        else:
            stored[change] = data.draw(st.tuples(allows, attributes))
            catalog.put(change, to_json(stored[change][0]), stored[change][1])


@given(allows, st.none() | st.lists(st.sampled_from(PRINCIPALS), max_size=3).map(tuple))
@settings(max_examples=150, deadline=None)
def test_sql_and_python_agree_on_who_sees_what(allow: list[str] | None, principals: tuple[str, ...] | None) -> None:
    connection = sqlite3.connect(":memory:")
    values = {"allow": to_json(allow), "principals": to_json(principals)}
    seen = connection.execute(f"SELECT {VISIBLE} FROM (SELECT :allow AS allow)", values).fetchone()[0]
    connection.close()
    assert bool(seen) == Scope(principals).admits(None if allow is None else tuple(allow), {})


@given(filters)
@settings(max_examples=100, deadline=None)
def test_filter_survives_the_way_to_json_and_back(asked: dict) -> None:
    assert repr(parse_filter(filter_to_json(parse_filter(asked)))) == repr(parse_filter(asked))


def test_truth_is_no_number_and_text_is_no_number() -> None:
    one = {"type": "eq", "key": "a", "value": 1}
    assert [matches(parse_filter(one), {"a": value}) for value in (1, 1.0, True, "1")] == [True, True, False, False]
    at_least = {"type": "gte", "key": "a", "value": 0}
    assert [matches(parse_filter(at_least), {"a": value}) for value in (0, True, "0")] == [True, False, False]
    assert matches(parse_filter({"type": "ne", "key": "a", "value": 1}), {})
    assert not matches(parse_filter({"type": "in", "key": "a", "value": []}), {"a": 1})
    assert matches(parse_filter({"type": "nin", "key": "a", "value": []}), {"a": 1})


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "eq", "key": "a", "value": 1}
    for _ in range(depth):
        inner = {"type": "and", "filters": [inner]}
    return inner


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "a = 1",
        {},
        {"type": "eq"},
        {"type": ["eq"], "key": "a", "value": 1},
        {"type": "like", "key": "a", "value": "x"},
        {"type": "eq", "key": 5, "value": 1},
        {"type": "eq", "key": "", "value": 1},
        {"type": "eq", "key": "a", "value": None},
        {"type": "eq", "key": "a", "value": [1]},
        {"type": "eq", "key": "a", "value": math.nan},
        {"type": "eq", "key": "a", "value": math.inf},
        {"type": "eq", "key": "a", "value": 10**400},
        {"type": "eq", "key": "a", "value": 10**5000},
        {"type": "eq", "key": "a", "value": 2**53 + 1},
        {"type": "eq", "key": "a", "value": "nul\0"},
        {"type": "eq", "key": "a", "value": "half \ud83d"},
        {"type": "eq", "key": "a\0", "value": 1},
        {"type": "eq", "key": "a", "value": 1, "more\ud83d": 1},
        {"type": "in", "key": "a", "value": "x"},
        {"type": "in", "key": "a", "value": [[1]]},
        {"type": "in", "key": "a", "value": [None]},
        {"type": "and", "filters": []},
        {"type": "and", "filters": {}},
        {"type": "and"},
        {"type": "and", "filters": [{"type": "or", "filters": [5]}]},
        nested(500),
        {"type": "or", "filters": [{"type": "eq", "key": "a", "value": at} for at in range(100_000)]},
    ],
    ids=range(29),
)
def test_wrong_filter_is_refused_in_words_that_can_be_sent(wrong: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_filter(wrong)
    assert caught.value.param == "filters"
    assert 10 < len(caught.value.message.encode()) < 500


def test_as_many_comparisons_as_allowed_and_very_long_lists_are_judged() -> None:
    catalog = Catalog([(number, None) for number in range(2000)], column_reader({n: {"n": n} for n in range(2000)}))
    clauses = [{"type": "eq", "key": "n", "value": at} for at in range(MOST_COMPARISONS)]
    assert catalog.allowed(None, parse_filter({"type": "or", "filters": clauses})).sum() == MOST_COMPARISONS
    listed = parse_filter({"type": "in", "key": "n", "value": list(range(1500, 100_000))})
    assert catalog.allowed(None, listed).sum() == 500


def test_attributes_forgotten_for_want_of_room_are_read_again() -> None:
    documents = {number: {f"key{at}": at for at in range(300)} for number in range(3)}
    catalog = Catalog([(number, None) for number in documents], column_reader(documents))
    for at in [*range(300), *range(300)]:
        asked = parse_filter({"type": "eq", "key": f"key{at}", "value": at})
        assert catalog.allowed(None, asked).sum() == 3


@pytest.mark.parametrize(
    "wrong",
    [{"a": None}, {"a": [1]}, {"a": {}}, {"a": math.nan}, {"a": 10**400}, {5: "a"}, {"": 1}, {"a\0": 1}, [1], "a"],
)
def test_wrong_attributes_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        checked_attributes(wrong, "report.md")
    assert caught.value.param == "attributes"


@pytest.mark.parametrize("wrong", ["everyone", 5, [5], [None], [""], ["a\0"], ["\ud83d"], {"user:ana": 1}])
def test_wrong_principals_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInputError):
        checked_allow(wrong)


def test_masks_of_the_same_question_are_one_object_until_something_changes() -> None:
    catalog = Catalog([(1, None), (2, '["user:ana"]')], column_reader({}))
    first = catalog.allowed(("user:ana",), None)
    assert catalog.allowed(("user:ana",), None) is first
    assert not first.flags.writeable
    catalog.put(2, '["user:ben"]', {})
    assert catalog.allowed(("user:ana",), None).tolist() == [False, True, False]
