"""Looks on at every request: counts it, logs it and traces it, as far as the settings say."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from index.interface import Found
from local_llm.settings import TelemetrySettings
from serving.answering.events import TokenUsage
from serving.telemetry.metrics import Metrics
from serving.telemetry.record import Record
from serving.telemetry.request_log import RequestLog
from serving.telemetry.tracing import Tracing


class Observer:
    """All on one event loop. Call `close` when done."""

    def __init__(self, settings: TelemetrySettings, tracing: Tracing | None = None):
        self.metrics = Metrics()
        self.tracing = tracing or (Tracing(settings) if settings.traces_url else None)
        self._log = RequestLog() if settings.request_log else None

    def close(self) -> None:
        if self.tracing is not None:
            self.tracing.close()
        if self._log is not None:
            self._log.close()

    def begin(self, scope: Scope, route: str) -> Record:
        record = Record(scope["method"], route)
        self.metrics.begin()
        if self.tracing is not None:
            self.tracing.begin(record, Headers(scope=scope))
        return record

    def end(self, record: Record) -> None:
        seconds = time.perf_counter() - record.began
        self.metrics.end(record, seconds)
        if self._log is not None:
            self._log.write(record, seconds)
        if self.tracing is not None:
            self.tracing.end(record)

    def rewritten(self, span: Any, seconds: float) -> None:
        """A question has just been made self-contained; `span` is the request's."""
        self._stage(span, "rewrite", "rewrite", seconds)

    def retrieved(self, span: Any, seconds: float) -> None:
        """Passages have just been found and cut to fit."""
        self._stage(span, "retrieve", "all", seconds)

    def _stage(self, span: Any, name: str, stage: str, seconds: float) -> None:
        self.metrics.retrieved(seconds, stage)
        if self.tracing is not None and span is not None:
            self.tracing.past(span, name, seconds)

    def searched(self, found: Found) -> None:
        """The index server told what its part of a search took. Not traced: by now the two are past."""
        self.metrics.retrieved(found.encode_seconds, "encode")
        self.metrics.retrieved(found.search_seconds, "search")

    def answered(
        self, model: str, strategy: str, usage: TokenUsage, first_seconds: float | None, asked_at: float
    ) -> None:
        self.metrics.answered(model, strategy, usage, first_seconds, time.perf_counter() - asked_at)

    def embedded(self, record: Record | None, model: str, tokens: int) -> None:
        """Texts became vectors. `record`: of the request; None: of a batch."""
        usage = TokenUsage(tokens)
        if record is not None:
            record.model, record.usage = model, usage
        self.metrics.count_tokens(model, usage)

    @contextmanager
    def engine_span(self, span: Any) -> Iterator[Mapping[str, str]]:
        """What the engine does during the block, below the request's span; headers that tell it of the trace."""
        assert self.tracing is not None
        below = self.tracing.below(span, "engine")
        try:
            yield self.tracing.headers(below)
        finally:
            below.end()
