"""The queue of attached uploads, with nobody but the test working it off."""

import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from index.attached_files import intersection
from index.attachment_worker import AttachedDocuments, AttachmentWorker
from index.collection.attachments import Attachments
from index.collection.database import Database
from index.collection.documents import StoredDocument
from index.interface import Attachment, FileQuery, Splitting
from index.registry import DATABASE
from index.service import IndexService
from local_llm.embedded import ENCODER, locate
from local_llm.errors import ConflictError
from local_llm.files import FileStore
from local_llm.identifiers import new_id
from local_llm.models import ModelStore
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import Collection, LedgerEntry, State

TEXT = "# Battery\n\nThe battery charges in four hours.\n"


@pytest.fixture
def uploads(settings: Settings, state: State) -> FileStore:
    return FileStore(settings, state)


@pytest.fixture
def upload(uploads: FileStore, admin: Caller, tmp_path: Path):
    def make(number: int = 0) -> str:
        data = [f"{TEXT}Number {number}.\n".encode()]
        return uploads.add(data, filename=f"{number}.md", purpose="assistants", project_id=admin.project_id).id

    return make


def statuses(service: IndexService, caller: Caller, collection: str) -> list[str]:
    return [file.status for file in service.files.files(caller, collection, FileQuery(limit=100)).files]


def test_files_attached_one_by_one_are_encoded_together(
    service: IndexService, state: State, admin: Caller, collection: str, upload
) -> None:
    before = len(_ingestions(state))
    identifiers = [upload(number) for number in range(30)]
    for identifier in identifiers:
        service.files.attach(admin, collection, [Attachment(identifier)])
    assert statuses(service, admin, collection) == ["in_progress"] * 30
    service.work_off()
    assert statuses(service, admin, collection) == ["completed"] * 30
    assert [facts["documents"] for facts in _ingestions(state)[before:]] == [30]


def _ingestions(state: State) -> list[dict]:
    with state.reading() as session:
        rows = session.query(LedgerEntry).filter_by(kind="ingestion").order_by(LedgerEntry.created_at)
        return [row.facts for row in rows]


class Interrupted(AttachedDocuments):
    """Looks for old vectors right before new ones are made: then something happens."""

    def __init__(self, *given, happens) -> None:
        super().__init__(*given)
        self._happens = happens

    def find(self, name: str) -> StoredDocument | None:
        self._happens()
        return super().find(name)


@pytest.mark.parametrize("end", ["cancel", "detach", "delete"])
def test_what_is_given_up_while_it_is_encoded_stays_out(
    service: IndexService, uploads: FileStore, admin: Caller, collection: str, upload, end: str
) -> None:
    identifiers = [upload(1), upload(2)]
    batch = service.files.attach_batch(admin, collection, [Attachment(one) for one in identifiers])
    row = service._registry.get(admin, collection)
    store = service._store(row)
    taken = store.attachments.waiting(10)

    def give_up() -> None:
        if end == "cancel":
            service.files.cancel_batch(admin, collection, batch.id)
        elif end == "detach" and store.attachments.holds(identifiers[0]):
            for one in identifiers:
                service.files.detach(admin, collection, one)
        elif end == "delete" and uploads.exists(identifiers[0]):
            for one in identifiers:
                uploads.delete(one, admin)
                service.files.forget(admin, one)

    destination = Interrupted(store, taken, happens=give_up)
    service._worker._ingest(row, store, destination, _sources(uploads, taken), Splitting(), lambda *_: None)
    assert service.documents(admin, collection) == []
    assert set(statuses(service, admin, collection)) == ({"cancelled"} if end == "cancel" else set())


def test_what_is_encoded_while_its_collection_moves_is_encoded_anew(
    service: IndexService, uploads: FileStore, admin: Caller, collection: str, home: Path, upload, tmp_path: Path
) -> None:
    shutil.copytree(locate(ENCODER), tmp_path / "other")
    prompts = {"prompts": {"document": "passage: ", "query": "query: "}}
    (tmp_path / "other" / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    other = ModelStore(home / "models").import_folder(tmp_path / "other", name=new_id("other-")).name
    service.files.attach(admin, collection, [Attachment(upload())])
    moved: list[str] = []

    def move() -> None:
        if not moved:
            moved.append(service.reembed(admin, collection, encoder=other).encoder)

    def ingest(row, store, destination, sources, splitting, report):
        interrupted = Interrupted(store, store.attachments.waiting(10), happens=move)
        return service._ingest_attached(row, store, interrupted, sources, splitting, report)

    worker = AttachmentWorker(uploads, service._registry, service._stores, service._store, ingest)
    worker.notice(service.get(admin, collection).id)
    worker.step()
    assert (moved, statuses(service, admin, collection)) == ([other], ["in_progress"])
    while worker.step():
        pass
    assert statuses(service, admin, collection) == ["completed"]
    assert service.search(admin, collection, "battery")[0].score > 0


def _sources(uploads: FileStore, taken: Sequence):
    from index.interface import Source

    return [Source(uploads.path(one.file_id), one.file_id, one.filename, one.file_id) for one in taken]


def test_a_permission_changed_on_the_way_is_the_documents(
    service: IndexService, admin: Caller, member: Caller, collection: str, upload
) -> None:
    identifier = upload()
    service.files.attach(admin, collection, [Attachment(identifier)])
    service.files.update(admin, collection, identifier, allow=["user:bob"], attributes={"n": 1})
    assert statuses(service, member, collection) == []
    service.work_off()
    assert service.search(member, collection, "battery") == []
    [info] = service.documents(admin, collection)
    assert (info.allow, info.attributes) == (("user:bob",), {"n": 1})


def test_a_document_removed_by_name_is_no_file_any_more(
    service: IndexService, admin: Caller, collection: str, upload
) -> None:
    identifier = upload()
    service.files.attach(admin, collection, [Attachment(identifier)])
    service.work_off()
    service.remove(admin, collection, [identifier])
    assert statuses(service, admin, collection) == []
    assert service.files.usage(admin, [collection])[0].files.total == 0


def test_the_last_request_for_a_file_counts_and_ends_those_before(
    service: IndexService, admin: Caller, collection: str, upload
) -> None:
    identifier = upload()
    first = service.files.attach_batch(admin, collection, [Attachment(identifier, attributes={"n": 1})])
    service.files.attach(admin, collection, [Attachment(identifier, attributes={"n": 2})])
    service.work_off()
    assert statuses(service, admin, collection) == ["completed"]
    assert service.files.batch(admin, collection, first.id).files.completed == 1
    [info] = service.documents(admin, collection)
    assert (info.attributes, info.version) == ({"n": 2}, 1)


def test_an_upload_that_is_there_is_not_forgotten(service: IndexService, admin: Caller, upload) -> None:
    with pytest.raises(ConflictError, match="still there"):
        service.files.forget(admin, upload())


def test_a_collection_of_vectors_takes_no_files(service: IndexService, admin: Caller, upload) -> None:
    made = service.create(admin, new_id("vectors-"), dimension=3)
    with pytest.raises(ConflictError, match="no encoder"):
        service.files.attach(admin, made.name, [Attachment(upload())])


def test_files_of_a_collection_are_counted_without_reading_its_vectors(
    service: IndexService, settings: Settings, state: State, admin: Caller, collection: str, upload
) -> None:
    service.files.attach(admin, collection, [Attachment(upload())])
    service.work_off()
    second = IndexService(settings, state)
    [usage] = second.files.usage(admin, [collection])
    assert (usage.files.completed, usage.expired) == (1, False)
    assert not second._stores.is_open(usage.id)
    second.close()


def test_a_listing_shows_each_file_once_while_files_complete(
    service: IndexService, admin: Caller, collection: str, upload
) -> None:
    """Pages are read while the queue is worked off: a file keeps its place when it becomes a document."""
    identifiers = [upload(number) for number in range(12)]
    service.files.attach(admin, collection, [Attachment(one) for one in identifiers])
    worker = threading.Thread(target=service.work_off)
    worker.start()
    for _ in range(5):
        seen: list[str] = []
        while True:
            query = FileQuery(after=seen[-1] if seen else None, limit=5, order="asc")
            page = service.files.files(admin, collection, query)
            seen += [file.id for file in page.files]
            if not page.has_more:
                break
        assert seen == identifiers
    worker.join()


@pytest.fixture
def damaged(service: IndexService, settings: Settings, admin: Caller, collection: str, upload) -> str:
    """A collection that nobody has open, and whose database nobody can read."""
    made = service.get(admin, collection)
    service.files.attach(admin, collection, [Attachment(upload())])
    service._worker._waiting.discard(made.id)
    service._stores.close(made.id, gone=True)
    database = settings.place.collections / made.id / DATABASE
    database.write_bytes(b"no database" * 1000)
    yield made.id
    shutil.rmtree(database.parent)
    with service._state.session() as session:
        session.delete(session.get_one(Collection, made.id))


def test_a_damaged_collection_says_so_and_hides_no_other(
    service: IndexService, uploads: FileStore, admin: Caller, damaged: str, upload
) -> None:
    sound = service.create(admin)
    identifier = upload(1)
    service.files.attach(admin, sound.id, [Attachment(identifier)])
    usage = {one.id: one for one in service.files.usage(admin, [damaged, sound.id])}
    assert "is damaged" in (usage[damaged].damage or "")
    assert (usage[sound.id].damage, usage[sound.id].files.in_progress) == (None, 1)
    uploads.delete(identifier, admin)
    assert service.files.forget(admin, identifier) == 1
    assert statuses(service, admin, sound.id) == []


def test_what_lives_longer_since_it_was_looked_at_keeps_its_documents(
    service: IndexService, admin: Caller, upload
) -> None:
    made = service.create(admin, expires_after_days=1)
    service.files.attach(admin, made.id, [Attachment(upload())])
    service.work_off()
    looked_at = service._registry.update(made.id, {"last_active_at": 0})
    service.update(admin, made.id, never_expires=True)
    service._worker._empty(looked_at)
    assert len(service.documents(admin, made.id)) == 1


def test_an_upload_is_for_those_whom_all_documents_name() -> None:
    assert intersection([]) is None
    assert intersection([None, None]) is None
    assert intersection([None, ("a", "b")]) == ("a", "b")
    assert intersection([("a", "b"), ("b", "c"), None]) == ("b",)
    assert intersection([("a",), ("b",)]) == ()


def test_a_request_that_is_being_worked_off_has_the_access_of_the_last_one(
    service: IndexService, settings: Settings, admin: Caller, collection: str, upload
) -> None:
    """The older request had been read with the project's access when the narrower one was acknowledged."""
    identifier = upload()
    service.files.attach(admin, collection, [Attachment(identifier)])
    database = Database(settings.place.collections / service.get(admin, collection).id / DATABASE)
    attachments = Attachments(database)
    [taken] = attachments.waiting(1)
    service.files.attach(admin, collection, [Attachment(identifier, allow=("group:finance",))])
    wanted = attachments.still_waiting(taken)
    assert wanted is not None
    assert wanted.allow == ("group:finance",)
    database.close()


def test_a_collection_deleted_while_files_wait_in_it_leaves_nothing_to_do(
    service: IndexService, admin: Caller, collection: str, upload
) -> None:
    service.files.attach(admin, collection, [Attachment(upload())])
    service.delete(admin, collection)
    service.work_off()  # it came back
    assert collection not in {one.name for one in service.collections(admin)}
