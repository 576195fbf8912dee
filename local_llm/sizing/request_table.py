"""What so many requests a second take: the rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from local_llm.costs.local import Traffic
from local_llm.costs.throughput import Throughput
from local_llm.sizing import measured, requests
from local_llm.sizing.measured import Growth
from local_llm.sizing.requests import GatewayCosts, SearchCosts
from local_llm.sizing.rows import Row, computed

GATEWAY = GatewayCosts(measured.GATEWAY_SECONDS.value, measured.CHUNK_SECONDS.value, measured.CONTEXT_SECONDS.value)
# Questions with a collection add to the answer's row of usage and to the search's.
USAGE_KINDS = 2


@dataclass(frozen=True)
class Load:
    """All of it is input. throughput: of one engine, None: not measured. pairs: keys x models in use at once;
    kept_share: of the requests, those of /v1/responses that are kept."""

    traffic: Traffic
    throughput: Throughput | None
    utilisation: float
    gpus_an_engine: int = 1
    pairs: float = 100
    kept_share: float = 0.0


def request_rows(rates: Sequence[float], load: Load, collections: Sequence[tuple[float, Growth]]) -> list[Row]:
    """A column for each number of requests a second; a row of searches for each collection: passages, growth."""
    traffic, utilisation, row = load.traffic, load.utilisation, computed(rates)
    answer = traffic.output_tokens

    def gateways(rate: float, *, chunks: float, with_context: bool) -> int:
        return requests.processes(rate, GATEWAY.of(chunks=chunks, with_context=with_context), utilisation)

    def cited(rate: float) -> int:
        return gateways(rate, chunks=answer, with_context=True)

    return [
        row(
            "gateway processes, whole answers",
            "count",
            lambda rate: gateways(rate, chunks=0, with_context=False),
            f"ceil(rate x {GATEWAY.seconds_a_request * 1e6:.0f} µs measured / utilisation input)",
        ),
        row(
            "gateway processes, streamed",
            "count",
            lambda rate: gateways(rate, chunks=answer, with_context=False),
            f"the same, + {GATEWAY.seconds_a_chunk * 1e6:g} µs measured x answer tokens input",
        ),
        row(
            "gateway processes, streamed with context",
            "count",
            cited,
            f"the same, + {GATEWAY.seconds_of_context * 1e3:g} ms measured",
        ),
        *(
            _searches(rates, utilisation, count, growth, with_words=with_words)
            for count, growth in collections
            for with_words in (False, True)
        ),
        row("tokens to read", "a second", lambda rate: rate * traffic.prompt_tokens, "rate x prompt tokens input"),
        row("tokens to write", "a second", lambda rate: rate * answer, "rate x answer tokens input"),
        _engines(rates, load),
        row(
            "state: round trips",
            "a second",
            lambda rate: requests.state_round_trips_per_second(rate, with_collection=True),
            "rate x 3: key, model, collection",
        ),
        row(
            "state: rows of usage, at most",
            "a second",
            lambda rate: requests.usage_rows_per_second(
                rate, kinds=USAGE_KINDS, gateway_processes=cited(rate), pairs=load.pairs
            ),
            "2 x min(rate, processes with context x keys and models in use input)",
        ),
        row(
            "state: transactions that write, at most",
            "a second",
            lambda rate: requests.write_transactions_per_second(
                rate, kept_share=load.kept_share, gateway_processes=cited(rate)
            ),
            "3 x processes with context + rate x kept share input",
        ),
    ]


def _searches(rates: Sequence[float], utilisation: float, count: float, growth: Growth, *, with_words: bool) -> Row:
    costs = SearchCosts(
        1 / measured.QUESTIONS_PER_SECOND.value,
        growth.search_ms.at(count) / 1e3,
        growth.words_ms(count) / 1e3 if with_words else 0.0,
        growth.text_ms / 1e3,
    )
    words = f", words {costs.words_seconds * 1e3:,.3g} ms computed" if with_words else ""
    return computed(rates)(
        f"index: cores, {count:,.0f} passages, vectors{' and words' if with_words else ' alone'}",
        "count",
        lambda rate: requests.processes(rate, costs.seconds, utilisation),
        f"ceil(rate x sum / utilisation); question {costs.encoding_seconds * 1e3:.2g} ms measured, "
        f"lists {costs.vectors_seconds * 1e3:.3g} ms computed{words}, texts {growth.text_ms:.2g} ms measured",
    )


def _engines(rates: Sequence[float], load: Load) -> Row:
    throughput = load.throughput
    if throughput is None:
        missing = "not known: --prefill-tokens-per-second and --decode-tokens-per-second, by local-llm cost measure"
        return Row("engine GPUs", "count", (None,) * len(rates), "computed", missing)
    return computed(rates)(
        "engine GPUs",
        "count",
        lambda rate: requests.engine_gpus(
            rate, load.traffic, throughput, load.utilisation, gpus_an_engine=load.gpus_an_engine
        ),
        "ceil(rate x (prompt / prefill rate input + answer / decode rate input) / utilisation) x GPUs of one",
    )
