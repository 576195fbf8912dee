"""One line of JSON a request, in the gateway's log: who asked what route of which model, and how it went."""

import json
import logging
import sys
from datetime import UTC, datetime

from serving.telemetry.record import Record

NAME = "local_llm.requests"


class _AsJSON(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {"time": moment, "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps(fields | getattr(record, "fields", {}), ensure_ascii=False)


class RequestLog:
    """Its own handler and nobody else's: call `close` when done."""

    def __init__(self) -> None:
        self._log = logging.getLogger(NAME)
        self._log.setLevel(logging.INFO)
        self._log.propagate = False
        self._handler = logging.StreamHandler(sys.stderr)
        self._handler.setFormatter(_AsJSON())
        self._log.addHandler(self._handler)

    def close(self) -> None:
        self._log.removeHandler(self._handler)

    def write(self, record: Record, seconds: float) -> None:
        self._log.info("request", extra={"fields": _fields(record, seconds)})


def _fields(record: Record, seconds: float) -> dict[str, object]:
    """What is not known of a request is left out."""
    caller, usage, first = record.caller, record.usage, record.first_token_seconds
    fields: dict[str, object | None] = {
        "request_id": record.request_id,
        "method": record.method,
        "route": record.route,
        "status": record.status,
        "ms": round(seconds * 1000, 1),
        "project": caller.project_id if caller else None,
        "key": caller.key_id if caller else None,
        "model": record.model or None,
        "strategy": record.strategy or None,
        "ttft_ms": None if first is None else round(first * 1000, 1),
        "error": record.error or None,
        "client_left": record.left or None,
    }
    if usage is not None:
        fields["input_tokens"] = usage.input_tokens
        fields["cached_tokens"] = usage.cached_tokens
        fields["output_tokens"] = usage.output_tokens
    return {name: value for name, value in fields.items() if value is not None}
