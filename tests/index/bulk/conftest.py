"""What all of these tests encode with."""

import pytest

from index.bulk.plan import Bound, Plan, make_plan
from index.encoders import Encoders
from index.interface import Splitting
from local_llm.settings import Settings


@pytest.fixture
def plan(settings: Settings) -> Plan:
    encoder = Bound(*Encoders(settings).fingerprint("all-MiniLM-L6-v2"))
    return make_plan(settings, encoder, encoder, Splitting(64, 8))
