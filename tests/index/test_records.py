"""Records as they come out again: by name, by filter, and gone by both."""

from pathlib import Path

import pytest

from index.ingestion.ingest import find_sources
from index.interface import Record
from index.service import IndexService
from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.permissions import Caller

RED = {"type": "eq", "key": "colour", "value": "red"}
RECORDS = [
    Record("pear", "A pear is sweet.", title="Pears", attributes={"colour": "green"}),
    Record("apple", "An apple is sour.", attributes={"colour": "red", "grams": 150}),
    Record("cherry", "A cherry is small.", attributes={"colour": "red"}),
]


def names(records: list[Record]) -> list[str]:
    return [record.name for record in records]


def test_records_come_out_as_they_were_put_in(service: IndexService, admin: Caller, collection: str) -> None:
    service.put(admin, collection, RECORDS)
    pear, apple, cherry = service.records(admin, collection)
    assert pear == RECORDS[0]
    assert (apple.name, apple.text, apple.attributes) == ("apple", RECORDS[1].text, RECORDS[1].attributes)
    assert cherry.name == "cherry"


def test_replaced_record_keeps_its_place(service: IndexService, admin: Caller, collection: str) -> None:
    service.put(admin, collection, RECORDS)
    service.put(admin, collection, [Record("pear", "A pear is soft.")])
    assert names(service.records(admin, collection)) == ["pear", "apple", "cherry"]


def test_records_are_found_by_name_and_by_filter(service: IndexService, admin: Caller, collection: str) -> None:
    service.put(admin, collection, RECORDS)
    assert names(service.records(admin, collection, names=["cherry", "pear", "cherry", "plum"])) == [
        "pear",
        "cherry",
    ]
    assert names(service.records(admin, collection, filters=RED)) == ["apple", "cherry"]
    assert names(service.records(admin, collection, names=["pear", "cherry"], filters=RED)) == ["cherry"]
    assert service.records(admin, collection, names=[]) == []
    with pytest.raises(InvalidInputError, match="like"):
        service.records(admin, collection, filters={"type": "like", "key": "colour", "value": "r%"})


def test_only_what_matches_is_removed(service: IndexService, admin: Caller, collection: str) -> None:
    service.put(admin, collection, RECORDS)
    assert service.remove_matching(admin, collection, names=["plum"]) == 0
    assert service.remove_matching(admin, collection, names=["pear", "cherry"], filters=RED) == 1
    assert names(service.records(admin, collection)) == ["pear", "apple"]
    assert {hit.document for hit in service.search(admin, collection, "small cherry", k=9)} == {"pear", "apple"}
    assert service.remove_matching(admin, collection, filters=RED) == 1
    assert service.remove_matching(admin, collection) == 1
    assert service.search(admin, collection, "pear") == []


def test_what_is_not_seen_is_neither_read_nor_removed(
    service: IndexService, admin: Caller, member: Caller, collection: str
) -> None:
    service.put(admin, collection, RECORDS[:1])
    service.put(admin, collection, RECORDS[1:], allow=["group:finance"])
    for asked in ({}, {"names": ["pear", "apple"]}, {"filters": {"type": "ne", "key": "colour", "value": "blue"}}):
        assert names(service.records(member, collection, **asked)) == ["pear"]
    assert service.remove_matching(member, collection, names=["apple"]) == 0
    assert service.remove_matching(member, collection) == 1
    assert names(service.records(admin, collection)) == ["apple", "cherry"]
    with pytest.raises(NotFoundError):
        service.records(Caller("proj_other", "admin"), collection)


def test_a_narrowed_permission_is_seen_by_the_next_reader(
    service: IndexService, admin: Caller, member: Caller, collection: str
) -> None:
    service.put(admin, collection, RECORDS)
    assert names(service.records(member, collection, filters=RED)) == ["apple", "cherry"]
    service.set_access(admin, collection, "apple", allow=["group:finance"])
    assert names(service.records(member, collection, filters=RED)) == ["cherry"]


def test_a_file_is_a_record_of_its_whole_text(
    service: IndexService, admin: Caller, collection: str, tmp_path: Path
) -> None:
    path = tmp_path / "two.md"
    path.write_text("# One\n\nFirst.\n\n# Two\n\nSecond.\n")
    service.add(admin, collection, find_sources([path]), attributes={"colour": "red"})
    assert service.stats(admin, collection).passages == 2
    [record] = service.records(admin, collection, filters=RED)
    assert (record.name, record.text, record.attributes) == ("two.md", path.read_text(), {"colour": "red"})
