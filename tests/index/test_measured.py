"""What the index's work took stands in the ledger: encoding, moving to another encoder, building structures."""

import numpy as np
import pytest

from index.interface import Record
from index.service import IndexService
from local_llm import ledger
from local_llm.permissions import Caller
from local_llm.settings import Settings, load_settings
from local_llm.state import LedgerEntry, State

from .test_reembed import CutOffError, filled, other_encoder

__all__ = ["filled", "other_encoder"]

DIMENSION = 16


def kinds(state: State, admin: Caller, kind: ledger.LedgerKind, collection: str) -> list[LedgerEntry]:
    return [one for one in ledger.entries(state, admin.project_id, kind) if one.facts["collection"] == collection]


def test_moving_to_another_encoder_is_noted_with_what_was_encoded(
    service: IndexService, admin: Caller, filled: str, other_encoder: str, state: State
) -> None:
    identifier, before = service.get(admin, filled).id, service.get(admin, filled).encoder
    outcome = service.reembed(admin, filled, encoder=other_encoder)
    (entry,) = kinds(state, admin, "reembed", identifier)
    facts = entry.facts
    assert facts["passages"] == outcome.passages > 0
    assert facts["tokens"] >= facts["passages"]
    assert 0 < facts["seconds"] <= round(outcome.seconds, 3)
    assert (facts["encoder"], facts["encoder_before"]) == (other_encoder, before)
    assert facts["energy_joules"] is None or facts["energy_of"]
    service.reembed(admin, filled, encoder=other_encoder)  # there is nothing to do
    assert len(kinds(state, admin, "reembed", identifier)) == 1


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
    (entry,) = kinds(state, admin, "reembed", identifier)
    assert entry.facts["passages"] == passages
    service.reembed(admin, filled, encoder=other_encoder)  # all is encoded by now
    assert len(kinds(state, admin, "reembed", identifier)) == 1


def test_a_structure_that_was_built_is_noted_once(settings: Settings, state: State, admin: Caller) -> None:
    ivf = load_settings(environment={"LOCAL_LLM_HOME": str(settings.home)}, overrides={"index.structure": "ivf"})
    service = IndexService(ivf, state)
    try:
        made = service.create(admin, "vectors", dimension=DIMENSION)
        vectors = np.random.default_rng(1).normal(size=(700, DIMENSION)).astype(np.float32)
        records = [
            Record(name=f"r{number}", text=f"Record {number}.", vector=vector.tolist())
            for number, vector in enumerate(vectors)
        ]
        service.put(admin, "vectors", records)
        service.settle()
        service.settle()
        (entry,) = kinds(state, admin, "index_build", made.id)
        assert (entry.facts["structure"], entry.facts["vectors"]) == ("ivf", 700)
        assert entry.facts["seconds"] > 0
    finally:
        service.close()
