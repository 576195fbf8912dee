"""What one gateway process counts. All labels come from sets of ours: a client cannot make a series.

An answer's request pays for a handful of additions here, nothing else; the rest happens when somebody looks.
"""

import os
import resource
from pathlib import Path

from serving.answering.events import TokenUsage
from serving.telemetry.record import Record
from serving.telemetry.series import Gauge, Row, Series, Tally, Timing

# Models come and go; the time series of those that went do not, until a restart.
MOST_MODELS = 200
OTHER, UNKNOWN = "other", "unknown"

FIRST_TOKEN_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
REQUEST_BOUNDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
STAGE_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)

# The stages of a retrieval that are told apart. `all`: from the question that is searched for to passages that fit,
# so without `rewrite`.
STAGES = ("rewrite", "encode", "search", "all")


class Metrics:
    def __init__(self) -> None:
        self.requests = Tally(
            "local_llm_requests",
            "Requests that were answered; status 0: the client left.",
            "route",
            "model",
            "status",
        )
        self.request_seconds = Timing(
            "local_llm_request_seconds", "From a request to the end of its answer.", "route", bounds=REQUEST_BOUNDS
        )
        self.in_flight = Gauge("local_llm_requests_in_flight", "Requests that are being answered.")
        self.refused = Tally("local_llm_refused", "Requests that were one too many, by which limit.", "limit")
        self.clients_left = Tally("local_llm_clients_left", "Clients that left before the end.", "route")
        self.errors = Tally("local_llm_errors", "Answers with an error, by its code.", "code")
        self.first_token_seconds = Timing(
            "local_llm_time_to_first_token_seconds",
            "From a question to the first piece of its streamed answer.",
            "model",
            "strategy",
            bounds=FIRST_TOKEN_BOUNDS,
        )
        self.answer_seconds = Timing(
            "local_llm_answer_seconds",
            "From a question to the end of the model's answer.",
            "model",
            "strategy",
            bounds=REQUEST_BOUNDS,
        )
        self.tokens = Tally(
            "local_llm_tokens",
            "Tokens as the engine counts them; cached are among input.",
            "model",
            "kind",
        )
        self.retrieval_seconds = Timing(
            "local_llm_retrieval_seconds", "Stages of finding passages.", "stage", bounds=STAGE_BOUNDS
        )
        self.running = Gauge("local_llm_questions_running", "Questions that the engine is being asked.")
        self.waiting = Gauge("local_llm_questions_waiting", "Questions that wait for their turn.")
        self.cpu_seconds = Tally("local_llm_gateway_cpu_seconds", "Processor time of the gateway process.")
        self.memory_bytes = Gauge("local_llm_gateway_memory_bytes", "Memory of the gateway process.")
        self.descriptors = Gauge("local_llm_gateway_open_descriptors", "Files and sockets it has open.")
        self.most_descriptors = Gauge("local_llm_gateway_max_descriptors", "How many it may have open.")
        self._models = {UNKNOWN}
        self._running = 0

    def begin(self) -> None:
        self._running += 1

    def end(self, record: Record, seconds: float) -> None:
        self._running -= 1
        route, status = record.route, record.status
        self.requests.add((route, self._model(record.model), str(status)))
        self.request_seconds.observe((route,), seconds)
        if status >= 400 or record.error:  # also one that was told in a stream
            self.errors.add((record.error or str(status),))
        if status == 429:
            self.refused.add((record.refused or OTHER,))
        if record.left:
            self.clients_left.add((route,))

    def answered(
        self, model: str, strategy: str, usage: TokenUsage, first_seconds: float | None, seconds: float
    ) -> None:
        """One answer of the engine, for whatever request."""
        model = self._model(model)
        key = (model, strategy)
        self.answer_seconds.observe(key, seconds)
        if first_seconds is not None:
            self.first_token_seconds.observe(key, first_seconds)
        self.count_tokens(model, usage)

    def count_tokens(self, model: str, usage: TokenUsage) -> None:
        model = self._model(model)
        self.tokens.add((model, "input"), usage.input_tokens)
        self.tokens.add((model, "output"), usage.output_tokens)
        self.tokens.add((model, "cached"), usage.cached_tokens)

    def retrieved(self, seconds: float, stage: str) -> None:
        """`stage` is one of STAGES."""
        self.retrieval_seconds.observe((stage if stage in STAGES else OTHER,), seconds)

    def series(self) -> list[Series]:
        return [value for value in vars(self).values() if isinstance(value, Series)]

    def snapshot(self, *, running: int, waiting: int) -> dict[str, list[Row]]:
        """All numbers as they are now, by the name of their series."""
        self.in_flight.set((), self._running)
        self.running.set((), running)
        self.waiting.set((), waiting)
        self._look_at_process()
        return {series.name: series.rows() for series in self.series()}

    def _model(self, name: str) -> str:
        if name in self._models:
            return name
        if not name:
            return UNKNOWN
        if len(self._models) >= MOST_MODELS:
            return OTHER
        self._models.add(name)
        return name

    def _look_at_process(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu_seconds.set((), used.ru_utime + used.ru_stime)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory_bytes.set((), pages * resource.getpagesize())
        self.descriptors.set((), len(os.listdir("/proc/self/fd")))  # noqa: PTH208 (names are enough)
        self.most_descriptors.set((), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
