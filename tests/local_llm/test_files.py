"""Uploads that are not for everyone."""

import pytest

from local_llm.errors import NotFoundError
from local_llm.files import FileStore
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import State

BOTH_DATABASES = True


@pytest.fixture
def files(settings: Settings, state: State) -> FileStore:
    return FileStore(settings, state)


def add(files: FileStore, admin: Caller, allow: list[str] | None) -> str:
    row = files.add([b"text"], filename="a.md", purpose="assistants", project_id=admin.project_id)
    files.set_allows({row.id: allow})
    return row.id


def test_a_restricted_file_is_there_only_for_those_it_names(files: FileStore, admin: Caller) -> None:
    identifier = add(files, admin, ["user:ana", "group:support"])
    for principal, visible in (("user:ana", True), ("group:support", True), ("user:bob", False)):
        caller = Caller(admin.project_id, "member", (principal,))
        assert [row.id for row in files.list(caller)] == ([identifier] if visible else [])
        if visible:
            assert files.get(identifier, caller).id == identifier
            continue
        for act in (files.get, files.delete):
            with pytest.raises(NotFoundError):
                act(identifier, caller)
        with pytest.raises(NotFoundError):
            files.get_all([identifier], caller, "file_ids")
    nobody = add(files, admin, [])
    assert files.get(nobody, admin).allow == []
    with pytest.raises(NotFoundError):
        files.get(nobody, Caller(admin.project_id, "member", ("user:ana",)))


def test_pages_of_a_member_are_full_though_files_between_are_hidden(files: FileStore, admin: Caller) -> None:
    member = Caller(admin.project_id, "member", ("user:ana",))
    visible = [add(files, admin, None if n % 5 == 0 else ["user:bob"]) for n in range(20)][::5]
    first = files.list(member, limit=3, order="asc")
    assert [row.id for row in first] == visible[:3]
    rest = files.list(member, limit=3, order="asc", after=first[-1].id)
    assert [row.id for row in rest] == visible[3:]


def test_many_files_are_looked_up_at_once(files: FileStore, admin: Caller) -> None:
    identifiers = [add(files, admin, None) for _ in range(3)]
    assert set(files.get_all(identifiers, admin, "file_ids")) == set(identifiers)
    with pytest.raises(NotFoundError, match="file-none"):
        files.get_all([*identifiers, "file-none"], admin, "file_ids")
