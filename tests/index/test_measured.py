"""What building structures over vectors took stands in the ledger."""

import numpy as np

from index.interface import Record
from index.service import IndexService
from local_llm import ledger
from local_llm.permissions import Caller
from local_llm.settings import Settings, load_settings
from local_llm.state import State

DIMENSION = 16


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
        (entry,) = ledger.entries(state, admin.project_id, "index_build")
        assert entry.facts["collection"] == made.id
        assert (entry.facts["structure"], entry.facts["vectors"]) == ("ivf", 700)
        assert entry.facts["seconds"] > 0
    finally:
        service.close()
