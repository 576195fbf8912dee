"""What is known of one request from outside, filled in as it goes its way."""

import os
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from local_llm.errors import LocalLLMError, RateLimitError
from local_llm.permissions import Caller
from serving.answering.events import TokenUsage

Headers = list[tuple[bytes, bytes]]

# Source: what the hosted API calls its version in this header.
API_VERSION = (b"openai-version", b"2020-10-01")


def new_request_id() -> str:
    return f"req_{os.urandom(12).hex()}"


@dataclass(slots=True)
class Record:
    """`route` is one of ours, never the client's path; `status` 0: the client left before it got one."""

    method: str
    route: str
    request_id: str = field(default_factory=new_request_id)
    began: float = field(default_factory=time.perf_counter)
    status: int = 0
    caller: Caller | None = None
    model: str = ""
    strategy: str = ""
    first_token_seconds: float | None = None
    usage: TokenUsage | None = None
    error: str = ""
    refused: str = ""  # why it was one too many
    left: bool = False
    span: Any = None  # of OpenTelemetry, where requests are traced

    def note(self, error: LocalLLMError) -> None:
        self.error = error.code or error.type
        if isinstance(error, RateLimitError):
            self.refused = error.limit

    def headers(self, organization: bytes) -> Headers:
        """What every answer carries, errors too."""
        spent_ms = int((time.perf_counter() - self.began) * 1000)
        return [
            (b"x-request-id", self.request_id.encode()),
            (b"openai-processing-ms", str(spent_ms).encode()),
            (b"openai-organization", organization),
            API_VERSION,
        ]


def record_of(scope: Scope) -> Record:
    """The record of a request to the control side."""
    record: Record = scope["record"]
    return record
