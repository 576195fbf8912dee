"""A key that is held to collections finds nothing of others; a project that is full gets nothing more."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from index.ingestion.ingest import find_sources
from index.service import IndexService
from index.wire import caller_from_json, caller_to_json
from local_llm.errors import ForbiddenError, NotFoundError
from local_llm.files import QuotaExceededError
from local_llm.permissions import Caller, Limits, local_admin
from local_llm.projects import ProjectStore
from local_llm.state import State

BATTERY = "# Battery\n\nThe battery charges in four hours from a wall socket.\n"


def test_collections_out_of_scope_are_as_if_they_were_not_there(
    service: IndexService, admin: Caller, collection: str
) -> None:
    within = service.create(admin, None)
    scoped = replace(admin, role="admin", key_id="key_1", collections=(within.id,))
    assert [one.id for one in service.collections(scoped)] == [within.id]
    assert service.get(scoped, within.id).id == within.id
    outside = service.get(admin, collection).id
    with pytest.raises(NotFoundError) as unknown:
        service.get(scoped, "vs_none")
    for name in (collection, outside):
        calls: list[Callable[[], object]] = [
            lambda name=name: service.get(scoped, name),  # type: ignore[misc]
            lambda name=name: service.search(scoped, name, "charging"),  # type: ignore[misc]
            lambda name=name: service.documents(scoped, name),  # type: ignore[misc]
            lambda name=name: service.passages(scoped, name),  # type: ignore[misc]
            lambda name=name: service.stats(scoped, name),  # type: ignore[misc]
            lambda name=name: service.delete(scoped, name),  # type: ignore[misc]
            lambda name=name: service.update(scoped, name, title="x"),  # type: ignore[misc]
            lambda name=name: service.files.usage(scoped, [name]),  # type: ignore[misc]
        ]
        for call in calls:
            with pytest.raises(NotFoundError) as caught:
                call()
            assert caught.value.message == unknown.value.message.replace("vs_none", name)
    with pytest.raises(ForbiddenError):
        service.create(scoped, "another")


def test_the_scope_travels_to_the_index_server() -> None:
    for collections in (None, (), ("vs_1", "vs_2")):
        caller = Caller("p", "member", ("user:ana",), "key_1", ("help",), collections, Limits(1, 2, 3))
        arrived = caller_from_json(caller_to_json(caller))
        assert arrived == replace(caller, models=None, limits=Limits())


def test_a_full_project_gets_nothing_more_and_loses_nothing(
    service: IndexService, state: State, write: Callable[[str, str], Path]
) -> None:
    project = ProjectStore(state).create("full")
    caller = local_admin(project.id)
    made = service.create(caller, "kb")
    sources = find_sources([write("battery.md", BATTERY)])
    service.add(caller, made.id, sources)
    ProjectStore(state).update(project.id, collection_quota_bytes=1000)
    with pytest.raises(QuotaExceededError, match="of the 1,000 that they may take"):
        service.add(caller, made.id, sources)
    assert len(service.search(caller, made.id, "charging")) == 1
    ProjectStore(state).update(project.id, collection_quota_bytes=None)
    assert service.add(caller, made.id, sources).unchanged == 1
