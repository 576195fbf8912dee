"""OpenAI's error envelope on every error that leaves the gateway."""

import logging
import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from local_llm.errors import (
    ConflictError,
    InvalidInputError,
    LocalLLMError,
    LockedError,
    NotFoundError,
    RateLimitError,
    UnavailableError,
)
from serving.telemetry.record import Record, record_of

log = logging.getLogger("local_llm.gateway")


def install(app: FastAPI) -> None:
    app.add_exception_handler(LocalLLMError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def respond(error: LocalLLMError) -> JSONResponse:
    return JSONResponse(error.envelope(), status_code=error.status, headers=_advice(error))


def _advice(error: LocalLLMError) -> dict[str, str]:
    """Whether to try again. The openai client does so after any 409 unless told not to."""
    if isinstance(error, UnavailableError):
        return {"retry-after": str(error.retry_after_seconds)}
    if isinstance(error, RateLimitError):
        if error.retry_after_seconds is None:
            return {"x-should-retry": "false"}
        return {"retry-after": str(max(1, math.ceil(error.retry_after_seconds)))}
    if isinstance(error, ConflictError) and not isinstance(error, LockedError):
        return {"x-should-retry": "false"}
    return {}


def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LocalLLMError)
    record_of(request.scope).note(error)
    return respond(error)


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return respond(invalid_input(error))


def invalid_input(error: RequestValidationError) -> InvalidInputError:
    """The same in our words: all wrong fields, the first as its `param`."""
    details = error.errors()
    where = [".".join(str(part) for part in detail["loc"][1:]) for detail in details]
    text = "; ".join(f"{name}: {detail['msg']}" for name, detail in zip(where, details, strict=True))
    return InvalidInputError(text, param=where[0] or None)


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return respond(NotFoundError(f"Invalid URL ({request.method} {request.url.path})"))
    wrong = InvalidInputError(f"{error.detail} ({request.method} {request.url.path})")
    return JSONResponse(wrong.envelope(), status_code=error.status_code, headers=error.headers)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    return unexpected(record_of(request.scope), error)


def unexpected(record: Record, error: Exception) -> JSONResponse:
    log.error("%s: %s %s failed", record.request_id, record.method, record.route, exc_info=error)
    found = LocalLLMError(
        "the server had an error while processing the request", hint=f"see gateway.log for {record.request_id}"
    )
    record.note(found)
    return respond(found)
