"""What the index promises about documents, permissions and citations."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from index.ingestion.ingest import find_sources
from index.interface import EVERYONE, Skipped, Source
from index.service import IndexService
from local_llm import ledger
from local_llm.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from local_llm.identifiers import new_id
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import State

Write = Callable[[str, str], Path]

BATTERY = "# Battery\n\n## Charging\n\nThe battery charges in four hours from a wall socket.\n"
RETURNS = "# Returns\n\nGoods can be returned within thirty days of purchase.\n"


def test_passage_found_is_literally_in_the_document(
    service: IndexService, admin: Caller, collection: str, write: Write
) -> None:
    write("battery.md", BATTERY)
    folder = write("sub/returns.md", RETURNS).parents[1]
    report = service.add(admin, collection, find_sources([folder]))
    assert (report.added, report.replaced, report.unchanged, report.skipped) == (2, 0, 0, ())
    best, other = service.search(admin, collection, "how long does charging take?", k=5)
    assert best.document == "battery.md"
    assert best.heading == "Battery > Charging"
    assert other.document == "sub/returns.md"
    assert best.score > other.score
    document = service.document(admin, collection, best.document_id, best.version)
    assert document.title == "Battery"
    assert document.text[best.start : best.end] == best.text == BATTERY.splitlines()[4]


def test_forbidden_document_is_never_returned(
    service: IndexService, admin: Caller, member: Caller, collection: str, write: Write
) -> None:
    service.add(admin, collection, find_sources([write("open.md", RETURNS)]))
    service.add(admin, collection, find_sources([write("closed.md", BATTERY)]), allow=["group:finance"])
    assert {hit.document for hit in service.search(admin, collection, "battery", k=9)} == {"open.md", "closed.md"}
    assert {hit.document for hit in service.search(member, collection, "battery", k=9)} == {"open.md"}
    assert [info.name for info in service.documents(member, collection)] == ["open.md"]
    assert service.stats(member, collection).documents == 1
    hidden = next(info for info in service.documents(admin, collection) if info.name == "closed.md")
    with pytest.raises(NotFoundError):
        service.document(member, collection, hidden.id)
    with pytest.raises(NotFoundError):
        service.remove(member, collection, ["closed.md"])


def test_filter_leaves_k_passages_to_those_who_see_few(
    service: IndexService, admin: Caller, member: Caller, collection: str, write: Write
) -> None:
    for number in range(6):
        service.add(admin, collection, find_sources([write(f"{number}.md", BATTERY)]), allow=["group:finance"])
    service.add(admin, collection, find_sources([write("mine.md", RETURNS)]), allow=["user:ana"])
    assert [hit.document for hit in service.search(member, collection, "battery charging", k=3)] == ["mine.md"]


def test_narrowed_permission_holds_at_once_without_encoding_again(
    service: IndexService, admin: Caller, member: Caller, collection: str, write: Write
) -> None:
    sources = find_sources([write("battery.md", BATTERY)])
    service.add(admin, collection, sources)
    assert service.search(member, collection, "battery")
    report = service.add(admin, collection, sources, allow=["group:finance"])
    assert (report.unchanged, report.tokens) == (1, 0)
    assert service.search(member, collection, "battery") == []
    service.add(admin, collection, sources, allow=[EVERYONE])
    assert service.search(member, collection, "battery")


def test_new_version_stays_as_restricted_as_the_old_one(
    service: IndexService, admin: Caller, member: Caller, collection: str, write: Write
) -> None:
    write("battery.md", BATTERY)
    service.add(admin, collection, find_sources([write("battery.md", BATTERY)]), allow=["group:finance"])
    service.add(admin, collection, find_sources([write("battery.md", RETURNS)]))
    assert service.search(member, collection, "returns") == []


def test_replaced_document_leaves_no_old_passage(
    service: IndexService, admin: Caller, collection: str, write: Write
) -> None:
    service.add(admin, collection, find_sources([write("guide.md", BATTERY)]), attributes={"area": "device"})
    old = service.search(admin, collection, "battery")[0]
    report = service.add(admin, collection, find_sources([write("guide.md", RETURNS)]))
    assert (report.added, report.replaced) == (0, 1)
    hits = service.search(admin, collection, "battery", k=9)
    assert [hit.text for hit in hits] == [RETURNS.splitlines()[2]]
    assert (hits[0].document_id, hits[0].version) == (old.document_id, old.version + 1)
    assert hits[0].passage_id != old.passage_id
    assert service.documents(admin, collection)[0].attributes == {"area": "device"}
    with pytest.raises(NotFoundError, match="replaced by version 2"):
        service.document(admin, collection, old.document_id, old.version)


def test_current_are_only_versions_that_stand_and_may_be_seen(
    service: IndexService, admin: Caller, member: Caller, collection: str, write: Write
) -> None:
    service.add(admin, collection, find_sources([write("a.md", BATTERY), write("b.md", RETURNS)]))
    cited = [(info.id, info.version) for info in service.documents(admin, collection)]
    assert service.current(member, collection, [*cited, ("doc_none", 1), ("\ud800", 1)]) == cited
    service.add(admin, collection, find_sources([write("a.md", RETURNS)]))
    service.set_access(admin, collection, "b.md", allow=["group:finance"])
    assert service.current(member, collection, cited) == []
    assert service.current(admin, collection, cited) == cited[1:]
    service.remove(admin, collection, ["b.md"])
    assert service.current(admin, collection, cited) == []
    assert service.current(admin, "nowhere", cited) == []


def test_removed_document_is_never_cited(
    service: IndexService, admin: Caller, collection: str, write: Write, settings: Settings, state: State
) -> None:
    service.add(admin, collection, find_sources([write("a.md", BATTERY), write("b.md", RETURNS)]))
    with pytest.raises(NotFoundError, match=r"c\.md"):
        service.remove(admin, collection, ["a.md", "c.md"])
    assert service.stats(admin, collection).documents == 2
    assert service.remove(admin, collection, ["a.md"]) == 1
    assert {hit.document for hit in service.search(admin, collection, "battery", k=9)} == {"b.md"}
    opened_anew = IndexService(settings, state)
    assert [info.name for info in opened_anew.documents(admin, collection)] == ["b.md"]
    opened_anew.close()


def test_unchanged_document_is_not_encoded_again(
    service: IndexService, admin: Caller, collection: str, write: Write
) -> None:
    sources = find_sources([write("battery.md", BATTERY)])
    service.add(admin, collection, sources)
    report = service.add(admin, collection, sources)
    assert (report.added, report.replaced, report.unchanged, report.tokens) == (0, 0, 1, 0)
    assert service.documents(admin, collection)[0].version == 1


def test_unparsable_files_are_named_while_others_go_on(
    service: IndexService, admin: Caller, collection: str, write: Write
) -> None:
    folder = write("good.md", BATTERY).parent
    write(".hidden.md", BATTERY)
    write("empty.md", " \n")
    write("sheet.xyz", "1;2")
    (folder / "binary.txt").write_bytes(b"\0\1\2")
    progress: list[tuple[int, int, str]] = []
    report = service.add(
        admin,
        collection,
        find_sources([folder]),
        report=lambda done, total, note: progress.append((done, total, note)),
    )
    assert report.added == 1
    assert {skipped.document for skipped in report.skipped} == {"empty.md", "sheet.xyz", "binary.txt"}
    assert Skipped("empty.md", "it holds no text") in report.skipped
    assert progress[0] == (0, 4, "")
    assert progress[-1][:2] == (4, 4)


def test_document_that_cannot_be_stored_holds_up_no_other(
    service: IndexService, admin: Caller, collection: str, write: Write
) -> None:
    path = write("battery.md", BATTERY)
    names = ["a.md", "b\0.md", "c.md"]
    report = service.add(admin, collection, [Source(path, name, "battery.md") for name in names])
    assert (report.added, [one.document for one in report.skipped]) == (2, ["b\0.md"])
    assert "without NUL" in report.skipped[0].reason
    assert [one.name for one in service.documents(admin, collection)] == ["a.md", "c.md"]


def test_names_that_look_like_ids_are_refused(service: IndexService, admin: Caller) -> None:
    with pytest.raises(InvalidInputError, match="as ids do"):
        service.create(admin, "vs_mine")


def test_damaged_replacement_leaves_the_old_version(
    service: IndexService, admin: Caller, collection: str, write: Write
) -> None:
    path = write("battery.md", BATTERY)
    service.add(admin, collection, find_sources([path]))
    path.write_bytes(b"\xff\xfe\xff")
    assert len(service.add(admin, collection, find_sources([path])).skipped) == 1
    assert service.search(admin, collection, "battery")[0].version == 1


def test_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no files"):
        find_sources([tmp_path])


def test_files_of_one_name_are_refused(write: Write) -> None:
    with pytest.raises(InvalidInputError, match=r"a\.md"):
        find_sources([write("x/a.md", BATTERY), write("y/a.md", RETURNS)])


def test_other_project_reaches_nothing(service: IndexService, collection: str) -> None:
    stranger = Caller("proj_other", "admin")
    assert service.collections(stranger) == []
    for ask in (service.get, service.stats, service.documents, service.delete):
        with pytest.raises(NotFoundError):
            ask(stranger, collection)
    with pytest.raises(NotFoundError):
        service.search(stranger, collection, "battery")


def test_member_keeps_within_its_own_principals(
    service: IndexService, admin: Caller, member: Caller, collection: str, write: Write
) -> None:
    service.add(admin, collection, find_sources([write("closed.md", BATTERY)]), allow=["group:finance"])
    with pytest.raises(ForbiddenError, match="group:finance"):
        service.add(member, collection, find_sources([write("mine.md", RETURNS)]), allow=["group:finance"])
    with pytest.raises(ForbiddenError, match=r"closed\.md"):
        service.add(member, collection, find_sources([write("closed.md", RETURNS)]))
    with pytest.raises(ForbiddenError):
        service.delete(member, collection)
    assert service.add(member, collection, find_sources([write("mine.md", RETURNS)]), allow=["user:ana"]).added == 1


def import_encoder(home: Path, folder: Path, name: str, query_prompt: str) -> None:
    """The embedded encoder under another name, and with a prompt of its own before queries."""
    from local_llm.embedded import ENCODER, locate
    from local_llm.models import ModelStore

    shutil.copytree(locate(ENCODER), folder)
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": query_prompt}}))
    ModelStore(home / "models").import_folder(folder, name=name)


def test_each_collection_is_searched_with_its_own_encoder(
    service: IndexService, admin: Caller, home: Path, tmp_path: Path, write: Write
) -> None:
    import_encoder(home, tmp_path / "other", "other-encoder", "ask: ")
    name = service.create(admin, new_id("test-"), encoder="other-encoder").name
    service.add(admin, name, find_sources([write("battery.md", BATTERY)]))
    assert service.search(admin, name, "battery")[0].document == "battery.md"


def test_encoder_that_is_no_longer_the_same_is_refused(
    service: IndexService, admin: Caller, settings: Settings, state: State, home: Path, tmp_path: Path
) -> None:
    import_encoder(home, tmp_path / "old", "replaced-encoder", "old: ")
    name = service.create(admin, new_id("test-"), encoder="replaced-encoder").name
    shutil.rmtree(home / "models" / "replaced-encoder")
    import_encoder(home, tmp_path / "new", "replaced-encoder", "new: ")
    opened_anew = IndexService(settings, state)
    with pytest.raises(ConflictError, match="another encoder") as caught:
        opened_anew.search(admin, name, "battery")
    assert "local-llm index reembed" in (caught.value.hint or "")
    opened_anew.close()


def test_collection_names_are_unique_in_a_project(service: IndexService, admin: Caller, collection: str) -> None:
    with pytest.raises(ConflictError):
        service.create(admin, collection)
    service.delete(admin, collection)
    with pytest.raises(NotFoundError):
        service.get(admin, collection)
    assert service.create(admin, collection).name == collection


def test_ingestion_is_measured(
    service: IndexService, admin: Caller, collection: str, write: Write, state: State
) -> None:
    service.add(admin, collection, find_sources([write("battery.md", BATTERY)]))
    entry = ledger.latest(state, admin.project_id, "ingestion")
    assert entry is not None
    assert {"documents", "passages", "tokens", "seconds", "cpu_seconds", "encoder"} <= entry.facts.keys()
    assert entry.facts["tokens"] > 0
