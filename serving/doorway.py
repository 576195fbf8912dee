"""What every request to the control side passes: a number, a path that is one, a body that comes in time.

(Questions to models go through serving/relay.py, which does the same by itself.)
"""

import asyncio
import re
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from local_llm.errors import InvalidInputError, NotFoundError, UnavailableError
from serving.bodies import in_time
from serving.error_responses import respond
from serving.services import Services
from serving.telemetry.record import Record

# The route of whatever is none of ours.
NO_ROUTE = "none"

LONGEST_PATH = 2048
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


class Doorway:
    """An ASGI application before that of the control side."""

    def __init__(self, control: ASGIApp, services: Callable[[], Services]):
        self._control = control
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._control(scope, receive, send)
            return
        services = self._services()
        observer = services.observer
        scope["record"] = record = observer.begin(scope, NO_ROUTE)
        telling = _telling(send, services, record, scope)
        try:
            await self._pass(services, record, scope, receive, telling)
        except asyncio.CancelledError:
            if record.status or not services.draining:
                raise
            error = UnavailableError("the server is being stopped", hint="ask again")
            record.note(error)
            await respond(error)(scope, receive, telling)
        finally:
            record.caller = scope.get("caller")
            record.route = _route_of(scope)
            record.left = record.left or not record.status
            observer.end(record)

    async def _pass(self, services: Services, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        error = _wrong_address(scope)
        if error is not None:
            record.note(error)
            await respond(error)(scope, receive, send)
        else:
            await self._control(scope, in_time(receive, services.settings.server.body_timeout_seconds), send)


def _telling(send: Send, services: Services, record: Record, scope: Scope) -> Send:
    """Writes our headers into the answer."""

    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            record.status = message["status"]
            ours = record.headers(services.organization) + services.limits.headers(scope.get("caller"))
            message["headers"] = [*message.get("headers", ()), *ours]
        await send(message)

    return tell


def _wrong_address(scope: MutableMapping[str, Any]) -> InvalidInputError | NotFoundError | None:
    """No name of ours holds control characters; some databases and file systems cannot even be asked for one."""
    path = scope["path"]
    if len(path) > LONGEST_PATH or CONTROL_CHARACTERS.search(path):
        return NotFoundError(f"Invalid URL ({scope['method']} {path[:60]!r})")
    if b"%00" in scope["query_string"]:
        return InvalidInputError("the query holds a NUL character")
    return None


def _route_of(scope: MutableMapping[str, Any]) -> str:
    """As we wrote it, with names for what stands in it: what a client can put there makes no series."""
    return getattr(scope.get("route"), "path", NO_ROUTE)
