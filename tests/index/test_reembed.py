"""Another encoder for a collection that is in use."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from index.ingestion.ingest import find_sources
from index.service import IndexService
from local_llm import ledger
from local_llm.embedded import ENCODER, locate
from local_llm.errors import ForbiddenError
from local_llm.models import ModelStore
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import LedgerEntry, State

Write = Callable[[str, str], Path]

TOPICS = ("battery", "returns", "shipping", "warranty", "invoices", "passwords")


class CutOffError(Exception):
    pass


@pytest.fixture(scope="module")
def other_encoder(home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The embedded encoder with a prompt before documents: other vectors, equally good."""
    folder = tmp_path_factory.mktemp("model") / "other"
    shutil.copytree(locate(ENCODER), folder)
    prompts = {"prompts": {"document": "passage: ", "query": "query: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return ModelStore(home / "models").import_folder(folder, name="prompted-encoder").name


@pytest.fixture
def filled(service: IndexService, admin: Caller, collection: str, write: Write) -> str:
    for topic in TOPICS:
        write(f"{topic}.md", f"# {topic}\n\nEverything there is to know about {topic}.\n")
    folder = write("battery.md", "# battery\n\nEverything there is to know about battery.\n").parent
    service.add(admin, collection, find_sources([folder]))
    return collection


def found(service: IndexService, admin: Caller, collection: str, topic: str) -> str:
    return service.search(admin, collection, f"what about {topic}?", k=1)[0].document


def test_searches_go_on_while_a_collection_moves(
    service: IndexService, admin: Caller, filled: str, other_encoder: str, write: Write
) -> None:
    service.encoder(other_encoder)
    wrong: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            wrong.extend(topic for topic in TOPICS[1:] if found(service, admin, filled, topic) != f"{topic}.md")

    def change(passages: int, _total: int, _note: str) -> None:
        service.add(admin, filled, find_sources([write("new/late.md", "# Late\n\nIt came while it moved.\n")]))
        service.remove(admin, filled, ["battery.md"])

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        report = service.reembed(admin, filled, encoder=other_encoder, report=once_encoded(change))
    finally:
        done.set()
        asking.join()
    assert wrong == []
    assert (report.encoder, report.passages) == (other_encoder, len(TOPICS))
    assert service.get(admin, filled).encoder == other_encoder
    assert found(service, admin, filled, "what came while it moved") == "late.md"
    assert "battery.md" not in {hit.document for hit in service.search(admin, filled, "battery", k=99)}


def once_encoded(change: Callable[[int, int, str], None]) -> Callable[[int, int, str], None]:
    """Calls `change` once, when passages are encoded and not yet adopted."""
    calls: list[int] = []

    def report(done: int, total: int, note: str) -> None:
        if done and not calls:
            calls.append(done)
            change(done, total, note)

    return report


def test_move_that_was_cut_off_goes_on(
    service: IndexService, admin: Caller, filled: str, other_encoder: str, settings: Settings, state: State
) -> None:
    def cut_off(done: int, _total: int, _note: str) -> None:
        if done:
            raise CutOffError

    with pytest.raises(CutOffError):
        service.reembed(admin, filled, encoder=other_encoder, report=cut_off)
    assert service.get(admin, filled).encoder == ENCODER.name
    assert found(service, admin, filled, "returns") == "returns.md"
    begun: list[int] = []
    service.reembed(admin, filled, encoder=other_encoder, report=lambda done, *_: begun.append(done))
    assert begun[0] == len(TOPICS)
    opened_anew = IndexService(settings, state)
    assert found(opened_anew, admin, filled, "returns") == "returns.md"
    opened_anew.close()


def test_only_an_admin_moves_a_collection(service: IndexService, member: Caller, filled: str) -> None:
    with pytest.raises(ForbiddenError):
        service.reembed(member, filled)


def moves(state: State, admin: Caller, collection: str) -> list[LedgerEntry]:
    found = ledger.entries(state, admin.project_id, "reembed")
    return [one for one in found if one.facts["collection"] == collection]


def test_moving_to_another_encoder_is_noted_with_what_was_encoded(
    service: IndexService, admin: Caller, filled: str, other_encoder: str, state: State
) -> None:
    identifier, before = service.get(admin, filled).id, service.get(admin, filled).encoder
    outcome = service.reembed(admin, filled, encoder=other_encoder)
    (entry,) = moves(state, admin, identifier)
    facts = entry.facts
    assert facts["passages"] == outcome.passages > 0
    assert facts["tokens"] >= facts["passages"]
    assert 0 < facts["seconds"] <= round(outcome.seconds, 3)
    assert (facts["encoder"], facts["encoder_before"]) == (other_encoder, before)
    assert facts["energy_joules"] is None or facts["energy_of"]
    service.reembed(admin, filled, encoder=other_encoder)  # there is nothing to do
    assert len(moves(state, admin, identifier)) == 1


def test_a_move_that_fails_notes_what_it_had_encoded(
    service: IndexService, admin: Caller, filled: str, other_encoder: str, state: State
) -> None:
    identifier = service.get(admin, filled).id
    passages = service.stats(admin, filled).passages

    def cut_off(done: int, _total: int, _note: str) -> None:
        if done:
            raise CutOffError

    with pytest.raises(CutOffError):
        service.reembed(admin, filled, encoder=other_encoder, report=cut_off)
    (entry,) = moves(state, admin, identifier)
    assert entry.facts["passages"] == passages
    service.reembed(admin, filled, encoder=other_encoder)  # all is encoded by now
    assert len(moves(state, admin, identifier)) == 1
