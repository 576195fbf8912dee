"""OpenTelemetry: a span a request, below it what was retrieved and what the engine did. Only where switched on.

The caller's trace is taken up (`traceparent`), and the engine is handed ours: vLLM adds its own spans to it when it
is told where to send them.
"""

import time
from collections.abc import Mapping
from typing import Any

from local_llm import __version__
from local_llm.settings import TelemetrySettings
from serving.telemetry.record import Record

SERVICE = "local-llm"

# How long a collector may take, also for what waits when the gateway ends.
SEND_SECONDS = 3


class Tracing:
    """Spans are sent from a thread of their own; what cannot be sent is dropped. Call `close` when done."""

    def __init__(self, settings: TelemetrySettings, exporter: Any = None):
        """`exporter` stands for the one that sends to `settings.traces_url`."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(endpoint=settings.traces_url, timeout=SEND_SECONDS)
        # Handed in, so that nothing is looked up in the environment.
        self._provider = TracerProvider(
            resource=Resource({"service.name": SERVICE, "service.version": __version__}),
            sampler=ParentBased(TraceIdRatioBased(settings.traces_share)),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(SERVICE, __version__)
        self._propagator = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Sends what waits."""
        self._provider.shutdown()

    def begin(self, record: Record, headers: Mapping[str, str]) -> None:
        from opentelemetry.trace import SpanKind

        context = self._propagator.extract(dict(headers))
        record.span = self._tracer.start_span(f"{record.method} {record.route}", context, kind=SpanKind.SERVER)

    def headers(self, span: Any) -> dict[str, str]:
        """What hands a span on to whoever is asked next."""
        from opentelemetry.trace import set_span_in_context

        carried: dict[str, str] = {}
        self._propagator.inject(carried, set_span_in_context(span))
        return carried

    def below(self, parent: Any, name: str) -> Any:
        """A span that begins now and ends with its end()."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        return self._tracer.start_span(name, set_span_in_context(parent), kind=SpanKind.CLIENT)

    def past(self, parent: Any, name: str, seconds: float) -> None:
        """A span that ends now."""
        from opentelemetry.trace import set_span_in_context

        ended = time.time_ns()
        began = ended - int(seconds * 1e9)
        self._tracer.start_span(name, set_span_in_context(parent), start_time=began).end(ended)

    def end(self, record: Record) -> None:
        from opentelemetry.trace import StatusCode

        span = record.span
        span.update_name(f"{record.method} {record.route}")
        span.set_attributes(_attributes(record))
        if record.status >= 500:
            span.set_status(StatusCode.ERROR, record.error)
        span.end()


def _attributes(record: Record) -> dict[str, str | int]:
    """Source: OpenTelemetry's semantic conventions for HTTP and generative AI, as far as they reach."""
    attributes: dict[str, str | int] = {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "local_llm.request_id": record.request_id,
    }
    if record.model:
        attributes |= {"gen_ai.request.model": record.model, "local_llm.strategy": record.strategy}
    if record.usage is not None:
        attributes["gen_ai.usage.input_tokens"] = record.usage.input_tokens
        attributes["gen_ai.usage.output_tokens"] = record.usage.output_tokens
    return attributes
