"""A sync does what it said, removes only what it saw, and keeps what it cannot read."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from index.ingestion.ingest import find_sources
from index.ingestion.sync import find_scoped
from index.interface import Source
from index.service import IndexService
from local_llm.errors import ForbiddenError, InvalidInputError
from local_llm.permissions import Caller

Write = Callable[[str, str], Path]


@pytest.fixture
def folder(write: Write) -> Path:
    for topic in ("battery", "returns", "shipping"):
        write(f"{topic}.md", f"# {topic}\n\nEverything there is to know about {topic}.\n")
    return write("battery.md", "# battery\n\nEverything there is to know about battery.\n").parent


@pytest.fixture
def synced(service: IndexService, admin: Caller, collection: str, folder: Path) -> str:
    service.sync(admin, collection, find_scoped(folder, ""), scope="")
    return collection


def state_of(service: IndexService, admin: Caller, collection: str) -> list[dict]:
    return [asdict(info) for info in service.documents(admin, collection)]


def names(service: IndexService, caller: Caller, collection: str) -> list[str]:
    return [info.name for info in service.documents(caller, collection)]


def test_dry_run_changes_nothing_and_says_what_the_sync_then_does(
    service: IndexService, admin: Caller, synced: str, folder: Path, write: Write
) -> None:
    write("returns.md", "# returns\n\nAnother text.\n")
    write("new.md", "# new\n\nText.\n")
    (folder / "shipping.md").unlink()
    before = state_of(service, admin, synced)
    plan = service.sync(admin, synced, find_scoped(folder, ""), scope="", dry_run=True, allow=["user:ana"])
    assert state_of(service, admin, synced) == before
    done = service.sync(admin, synced, find_scoped(folder, ""), scope="")
    for report in (plan, done):
        assert (report.to_add, report.to_replace, report.to_remove, report.unchanged) == (
            ("new.md",),
            ("returns.md",),
            ("shipping.md",),
            1,
        )
    assert names(service, admin, synced) == ["battery.md", "new.md", "returns.md"]


def test_file_that_cannot_be_read_keeps_its_old_version(
    service: IndexService, admin: Caller, synced: str, folder: Path, write: Write
) -> None:
    sources = find_scoped(folder, "")
    (folder / "battery.md").unlink()  # after it was listed: whatever the reason, it cannot be read
    write("returns.md", "# returns\n\nAnother text.\n")
    done = service.sync(admin, synced, sources, scope="")
    assert done.ingest is not None
    assert [skipped.document for skipped in done.ingest.skipped] == ["battery.md"]
    assert (done.to_replace, done.to_remove) == (("returns.md",), ())
    assert names(service, admin, synced) == ["battery.md", "returns.md", "shipping.md"]
    assert service.search(admin, synced, "what about battery?", 1)[0].document == "battery.md"


def test_emptied_file_keeps_its_old_version(
    service: IndexService, admin: Caller, synced: str, folder: Path
) -> None:
    (folder / "battery.md").write_bytes(b"")
    done = service.sync(admin, synced, find_scoped(folder, ""), scope="")
    assert done.ingest is not None
    assert [skipped.document for skipped in done.ingest.skipped] == ["battery.md"]
    assert service.search(admin, synced, "what about battery?", 1)[0].document == "battery.md"


def test_empty_folder_and_no_files_at_all_are_refused(
    service: IndexService, admin: Caller, synced: str, tmp_path: Path
) -> None:
    (tmp_path / "unmounted").mkdir()
    with pytest.raises(InvalidInputError, match="holds no files"):
        find_scoped(tmp_path / "unmounted", "")
    with pytest.raises(InvalidInputError):
        service.sync(admin, synced, [], scope="")
    assert len(names(service, admin, synced)) == 3


def test_scope_is_a_fence(service: IndexService, admin: Caller, synced: str, folder: Path) -> None:
    service.sync(admin, synced, find_scoped(folder, "handbook/"), scope="handbook/")
    (folder / "battery.md").unlink()
    done = service.sync(admin, synced, find_scoped(folder, "handbook/"), scope="handbook/")
    assert done.to_remove == ("handbook/battery.md",)
    assert "battery.md" in names(service, admin, synced)
    with pytest.raises(InvalidInputError, match="scope"):
        service.sync(admin, synced, find_scoped(folder, "other/"), scope="handbook/")
    with pytest.raises(InvalidInputError, match="slash"):
        find_scoped(folder, "handbook")


def test_member_removes_nothing_that_it_does_not_see(
    service: IndexService, admin: Caller, member: Caller, synced: str, folder: Path, write: Write
) -> None:
    service.set_access(admin, synced, "battery.md", allow=["group:finance"])
    mine = Source(write("../mine/mine.md", "# mine\n\nText.\n"), "mine.md", "mine.md")
    done = service.sync(member, synced, [mine], scope="", allow=["user:ana"])
    assert done.to_remove == ("returns.md", "shipping.md")
    assert names(service, admin, synced) == ["battery.md", "mine.md"]
    hidden = Source(folder / "battery.md", "battery.md", "battery.md")
    with pytest.raises(ForbiddenError):
        service.sync(member, synced, [mine, hidden], scope="")
    assert names(service, admin, synced) == ["battery.md", "mine.md"]


def test_what_came_while_it_ran_is_not_removed(
    service: IndexService, admin: Caller, synced: str, folder: Path, write: Write
) -> None:
    """Neither a document that was replaced meanwhile, nor one that another removed, ends or spoils the sync."""
    for name in ("returns.md", "shipping.md"):
        (folder / name).unlink()
    again = Source(
        write("../elsewhere/returns.md", "# returns\n\nBrought by another.\n"), "returns.md", "returns.md"
    )
    acted: list[str] = []

    def meanwhile(_done: int, _total: int, _note: str) -> None:
        if not acted:
            acted.append("once")
            service.add(admin, synced, [again])
            service.remove(admin, synced, ["shipping.md"])

    done = service.sync(admin, synced, find_scoped(folder, ""), scope="", report=meanwhile)
    assert done.to_remove == ("returns.md", "shipping.md")
    assert names(service, admin, synced) == ["battery.md", "returns.md"]


class CutOffError(Exception):
    pass


def test_sync_cut_off_before_its_second_phase_has_removed_nothing(
    service: IndexService, admin: Caller, synced: str, folder: Path, write: Write
) -> None:
    (folder / "battery.md").unlink()
    write("new.md", "# new\n\nText.\n")
    sources = find_scoped(folder, "")

    def cut_off(done: int, total: int, _note: str) -> None:
        if done == total:
            raise CutOffError

    with pytest.raises(CutOffError):
        service.sync(admin, synced, sources, scope="", report=cut_off)
    assert names(service, admin, synced) == ["battery.md", "new.md", "returns.md", "shipping.md"]
    service.sync(admin, synced, sources, scope="")
    assert names(service, admin, synced) == ["new.md", "returns.md", "shipping.md"]


def test_file_whose_name_is_no_text_is_taken_under_one_that_is(
    service: IndexService, admin: Caller, collection: str, tmp_path: Path
) -> None:
    folder = tmp_path / "latin"
    folder.mkdir()
    path = Path(os.fsdecode(os.fsencode(folder) + b"/gr\xfc\xdfe.md"))
    path.write_text("# battery\n\nText.\n")
    for sources in (find_sources([folder]), find_scoped(folder, "")):
        assert service.add(admin, collection, sources).skipped == ()
    assert names(service, admin, collection) == ["gr\ufffd\ufffde.md"]
