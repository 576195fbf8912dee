"""What was measured on a machine, as its ledger has it."""

import pytest

from local_llm import ledger
from local_llm.permissions import Caller
from local_llm.state import State

# 20,000 tokens read, 2,000 written a second.
SPEED = {"seconds_per_prefill_token": 5e-5, "seconds_per_decode_token": 5e-4, "seconds": 90.0, "gpus": 1}
BASE = {**SPEED, "model": "small", "is_adapter": False}
TRAINING = {"seconds": 7200.0, "tokens": 3_000_000, "examples": 500}
INDEXING = {"seconds": 1800.0, "documents": 400, "tokens": 1_000_000}


@pytest.fixture
def measured(state: State, admin: Caller) -> dict[str, str]:
    """Run ids by kind."""
    return {
        "throughput": ledger.record(state, admin.project_id, "throughput", BASE),
        "training": ledger.record(state, admin.project_id, "training", TRAINING),
        "ingestion": ledger.record(state, admin.project_id, "ingestion", INDEXING),
    }
