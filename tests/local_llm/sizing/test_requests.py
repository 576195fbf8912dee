"""What requests a second take: worked by hand."""

import pytest

from local_llm.costs.local import Traffic
from local_llm.costs.throughput import throughput_of
from local_llm.errors import InvalidInputError
from local_llm.sizing import requests
from local_llm.sizing.requests import GatewayCosts, SearchCosts

GATEWAY = GatewayCosts(seconds_a_request=200e-6, seconds_a_chunk=10e-6, seconds_of_context=2.8e-3)


def test_processor_time_of_a_gateway() -> None:
    assert GATEWAY.of(chunks=0, with_context=False) == 200e-6
    # 200 µs + 300 x 10 µs + 2,800 µs
    assert GATEWAY.of(chunks=300, with_context=True) == pytest.approx(6e-3, abs=1e-12)


def test_processes() -> None:
    # 1,000 x 200 µs / 0.5 = 0.4; 10,000: 4; with 6 ms: 120
    assert requests.processes(1000, 200e-6, 0.5) == 1
    assert requests.processes(10_001, 200e-6, 0.5) == 5
    assert requests.processes(10_000, 6e-3, 0.5) == 120
    assert requests.processes(0, 6e-3, 0.5) == 1


def test_engine_gpus() -> None:
    # 2,000 / 20,000 + 300 / 2,000 = 0.25 s; 10 a second at 0.5: 5 engines of two GPUs
    rates = throughput_of(prefill_tokens_per_second=20_000, decode_tokens_per_second=2000)
    assert requests.engine_gpus(10, Traffic(2000, 300), rates, 0.5, gpus_an_engine=2) == 10


def test_a_search_is_its_parts() -> None:
    assert SearchCosts(1e-3, 2e-3, 4e-3, 0.5e-3).seconds == pytest.approx(7.5e-3)


def test_what_the_state_is_asked_and_told() -> None:
    assert requests.state_round_trips_per_second(1000, with_collection=False) == 2000
    assert requests.state_round_trips_per_second(1000, with_collection=True) == 3000
    # Ten requests are at most ten rows of each kind; 1,000 in 4 processes at most 4 x 50.
    assert requests.usage_rows_per_second(10, kinds=2, gateway_processes=4, pairs=50) == 20
    assert requests.usage_rows_per_second(1000, kinds=2, gateway_processes=4, pairs=50) == 400
    # 3 x 4 and a tenth of 1,000
    assert requests.write_transactions_per_second(1000, kept_share=0.1, gateway_processes=4) == 112


@pytest.mark.parametrize("utilisation", [0, -1, 1.01, float("nan")])
def test_an_impossible_utilisation_is_refused(utilisation: float) -> None:
    with pytest.raises(InvalidInputError, match="utilisation"):
        requests.processes(1, 1, utilisation)
