"""Passages page by page: as they are encoded, and only those that the caller may see."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from index.ingestion.ingest import find_sources
from index.interface import PASSAGE_PAGE, StoredPassage
from index.service import IndexService
from local_llm.errors import InvalidInputError
from local_llm.permissions import Caller

Write = Callable[[str, str], Path]


def page(name: str, paragraphs: int) -> str:
    parts = (f"## Part {number}\n\n{name} is explained here. " * 3 for number in range(paragraphs))
    return f"# {name}\n\n" + "\n\n".join(parts)


def all_pages(service: IndexService, caller: Caller, collection: str, limit: int) -> list[StoredPassage]:
    found: list[StoredPassage] = []
    while part := service.passages(caller, collection, after=found[-1].id if found else 0, limit=limit):
        assert len(part) <= limit
        found += part
    return found


@pytest.fixture
def filled(service: IndexService, admin: Caller, collection: str, write: Write) -> str:
    """Documents for everyone, for ana, and for finance, one after the other."""
    for number, allow in enumerate((None, ["user:ana"], ["group:finance"]) * 2):
        source = find_sources([write(f"{number}.md", page(f"Topic {number}", 4))])
        service.add(admin, collection, source, allow=allow)
    return collection


def test_pages_hold_every_passage_once_whatever_their_size(
    service: IndexService, admin: Caller, filled: str
) -> None:
    whole = service.passages(admin, filled)
    assert len(whole) == service.stats(admin, filled).passages
    assert [one.id for one in whole] == sorted({one.id for one in whole})
    for limit in (1, 3, 7):
        assert all_pages(service, admin, filled, limit) == whole


def test_a_member_reads_its_own_passages_only(
    service: IndexService, admin: Caller, member: Caller, filled: str
) -> None:
    seen = {one.document for one in all_pages(service, member, filled, 2)}
    assert seen == {"0.md", "1.md", "3.md", "4.md"}
    assert {one.document for one in all_pages(service, replace(member, principals=()), filled, 2)} == {
        "0.md",
        "3.md",
    }
    service.set_access(admin, filled, "1.md", allow=["group:finance"])
    assert "1.md" not in {one.document for one in service.passages(member, filled)}


def test_texts_are_what_is_encoded(service: IndexService, admin: Caller, filled: str) -> None:
    found = service.passages(admin, filled)
    assert all(one.text.startswith(f"Topic {one.document[0]}") for one in found)  # the title comes first
    hit = service.search(admin, filled, "Topic 3", k=1)[0]
    (same,) = [one for one in found if one.id == hit.passage_id]
    assert same.text.endswith(hit.text)
    assert (same.document, same.document_id) == (hit.document, hit.document_id)
    (vector,), (asked,) = (
        service.embed(admin, [text], kind=kind).vectors
        for text, kind in ((same.text, "document"), ("Topic 3", "query"))
    )
    assert sum(a * b for a, b in zip(vector, asked, strict=True)) == pytest.approx(hit.score, abs=1e-4)


@pytest.mark.parametrize("limit", [0, -1, PASSAGE_PAGE + 1])
def test_a_page_has_a_size(service: IndexService, admin: Caller, filled: str, limit: int) -> None:
    with pytest.raises(InvalidInputError, match="limit"):
        service.passages(admin, filled, limit=limit)
