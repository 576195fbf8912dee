"""Processes, GPUs, cores and rows for so many requests a second."""

import math
from dataclasses import dataclass

from local_llm.costs.figure import refuse_negative, refuse_not_a_share, refuse_not_positive
from local_llm.costs.local import Traffic, request_seconds
from local_llm.costs.throughput import Throughput

# Usage, audit log and kept chats: each gateway process writes each in one transaction a second at most.
# Source: local_llm/trailing.py.
TRAILING_WRITES = 3
# Of PostgreSQL, whether anybody committed: for the key, for the model, in the index server for the collection.
# Source: docs/postgresql.md, what a request costs.
ROUND_TRIPS = 2
ROUND_TRIPS_WITH_COLLECTION = 3


@dataclass(frozen=True)
class GatewayCosts:
    """Processor seconds of a gateway process: of a request, of each chunk streamed, and of context found for it."""

    seconds_a_request: float
    seconds_a_chunk: float
    seconds_of_context: float

    def of(self, *, chunks: float, with_context: bool) -> float:
        """request + chunks x chunk + context. chunks: 0 where answers are not streamed."""
        refuse_negative(chunks=chunks)
        context = self.seconds_of_context if with_context else 0.0
        return self.seconds_a_request + chunks * self.seconds_a_chunk + context


@dataclass(frozen=True)
class SearchCosts:
    """Processor seconds of the index server: a question encoded, searched by vectors and words, its texts read."""

    encoding_seconds: float
    vectors_seconds: float
    words_seconds: float
    texts_seconds: float

    @property
    def seconds(self) -> float:
        return self.encoding_seconds + self.vectors_seconds + self.words_seconds + self.texts_seconds


def processes(requests_per_second: float, seconds_a_request: float, utilisation: float) -> int:
    """ceil(requests/s x processor seconds / utilisation): each a core's worth of one thread. At least one."""
    refuse_negative(requests_per_second=requests_per_second, seconds_a_request=seconds_a_request)
    refuse_not_a_share(utilisation=utilisation)
    return max(1, math.ceil(requests_per_second * seconds_a_request / utilisation))


def engine_gpus(
    requests_per_second: float,
    traffic: Traffic,
    throughput: Throughput,
    utilisation: float,
    *,
    gpus_an_engine: int = 1,
) -> int:
    """ceil(requests/s x saturated seconds of a request / utilisation) engines x GPUs of one.

    saturated seconds = uncached prompt tokens / prefill tokens/s + answer tokens / decode tokens/s, of one engine.
    """
    refuse_not_positive(gpus_an_engine=gpus_an_engine)
    engines = processes(requests_per_second, request_seconds(traffic, throughput), utilisation)
    return engines * gpus_an_engine


def state_round_trips_per_second(requests_per_second: float, *, with_collection: bool) -> float:
    """requests/s x 2, or x 3 with a collection: PostgreSQL's."""
    refuse_negative(requests_per_second=requests_per_second)
    return requests_per_second * (ROUND_TRIPS_WITH_COLLECTION if with_collection else ROUND_TRIPS)


def usage_rows_per_second(requests_per_second: float, *, kinds: int, gateway_processes: int, pairs: float) -> float:
    """kinds x min(requests/s, processes x pairs): a process adds up a second's of a key and a model in one row.

    kinds: rows that a request adds to (its answer's; with a collection its search's too); pairs: keys x models that
    are in use within a second.
    """
    refuse_negative(requests_per_second=requests_per_second, pairs=pairs)
    return kinds * min(requests_per_second, gateway_processes * pairs)


def write_transactions_per_second(
    requests_per_second: float, *, kept_share: float, gateway_processes: int
) -> float:
    """3 x processes + requests/s x the share that are responses to be kept, each a transaction of its own.

    One at a time of all hosts (docs/postgresql.md): the reciprocal of one's seconds is the limit.
    """
    refuse_negative(requests_per_second=requests_per_second, kept_share=kept_share)
    return TRAILING_WRITES * gateway_processes + requests_per_second * kept_share
