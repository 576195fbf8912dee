"""The gateway's side of one engine: requests over its Unix socket or its URL, adapters made known on first use."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

from local_llm.errors import LocalLLMError, UnavailableError
from local_llm.state import Adapter
from serving.bodies import dump_json
from serving.engine_connection import BrokenError, ConnectError, EngineResponse
from serving.engine_http import NO_HEADERS, EngineHttp
from serving.loaded_adapters import LoadedAdapters
from serving.whereabouts import Whereabouts

# A started engine answers /health at once; one that imports its libraries does not answer at all.
HEALTH_TIMEOUT_SECONDS = 2.0
METRICS_TIMEOUT_SECONDS = 2.0
# One that is at work on long prompts, on a machine that is busy, may be late once or twice.
MOST_SILENCES = 3

Verify = Callable[[Adapter], Path]


@dataclass(frozen=True)
class EngineStatus:
    """`job`: the one for which the engine is stopped. `each`: of several engines, in the order of engine.urls."""

    up: bool
    job: str | None = None
    retry_after_seconds: int = UnavailableError.retry_after_seconds
    each: tuple[bool, ...] = ()


class Look(Enum):
    """What an engine says when it is asked after its health. SILENT: nothing yet, over a connection that stands."""

    WELL = "well"
    SILENT = "silent"
    DOWN = "down"


class EngineClient:
    """One engine. Call `close` when done."""

    def __init__(self, where: Whereabouts, verify: Verify):
        """`verify` returns the folder of an adapter whose files are the published ones."""
        self._where = where
        self._http = EngineHttp(where.address, where.headers)
        self._adapters = LoadedAdapters(self, verify, where.adapter_path)
        self._silences = MOST_SILENCES  # in a row; as many make one that is not there

    async def close(self) -> None:
        self._http.close()

    async def status(self) -> EngineStatus:
        up = await self.ready()
        return EngineStatus(up) if up else EngineStatus(False, self._where.job(), self._where.retry_after_seconds())

    async def ready(self) -> bool:
        """An engine that was well is taken to be so until it has been silent MOST_SILENCES times in a row."""
        match await self.look():
            case Look.WELL:
                self._silences = 0
            case Look.SILENT:
                self._silences = min(self._silences + 1, MOST_SILENCES)
            case Look.DOWN:
                self._silences = MOST_SILENCES
        return self._silences < MOST_SILENCES

    async def look(self) -> "Look":
        """Asks after its health once."""
        try:
            response = await self._http.request("GET", "/health", timeout_seconds=HEALTH_TIMEOUT_SECONDS)
        except TimeoutError:
            return Look.SILENT
        except (ConnectError, BrokenError):
            # Whatever comes up next is another engine, which knows no adapters.
            self._adapters.forget_all()
            return Look.DOWN
        response.close()
        return Look.WELL if response.status == 200 else Look.DOWN

    async def metrics(self) -> bytes:
        """What the engine says of itself to Prometheus; nothing if it is not up."""
        try:
            response = await self._http.request("GET", "/metrics", timeout_seconds=METRICS_TIMEOUT_SECONDS)
            data = await response.read()
        except (ConnectError, BrokenError, TimeoutError):
            return b""
        return data if response.status == 200 else b""

    def post(
        self,
        path: str,
        body: dict[str, Any],
        adapter: Adapter | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> "Exchange":
        """For `async with`: an open response, to be read or streamed. Leaving the block early cancels the
        generation. `headers` hand on a trace.

        `adapter` is the one that the body names: the engine is first made to know it.

        Raises: UnavailableError if the engine is down, EngineError on any status but 200, AdapterRefusedError,
        IntegrityError.
        """
        return Exchange(self, path, body, adapter, headers)

    async def open(
        self, path: str, body: dict[str, Any], adapter: Adapter | None, headers: Mapping[str, str]
    ) -> EngineResponse:
        """As `post`; the response is the caller's to close."""
        if adapter is None:
            return await self._ask(path, body, headers)
        if not self.knows_adapter(adapter.name):
            await self._adapters.load(adapter)
        try:
            return await self._ask(path, body, headers)
        except EngineError as error:
            if error.status != 404:
                raise
        # The engine was started again since: it knows the adapter no longer.
        self._adapters.forget(adapter.name)
        await self._adapters.load(adapter)
        return await self._ask(path, body, headers)

    async def _ask(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> EngineResponse:
        """A response of status 200; others are closed."""
        try:
            response = await self._http.request(
                "POST", path, dump_json(body), headers=headers, timeout_seconds=self._where.timeout_seconds
            )
            if response.status != 200:
                raise await self._refusal(response, path)
        except ConnectError:
            self._adapters.forget_all()
            raise self._absence(UnreachableError) from None
        except TimeoutError:
            raise self.late() from None
        except BrokenError:
            raise self.lost() from None
        return response

    async def _refusal(self, response: EngineResponse, path: str) -> LocalLLMError:
        """Raises: UnreachableError, BrokenError, TimeoutError."""
        try:
            self._refuse_stranger(response.status)
            if response.status >= 500 and self._where.job() is not None:
                return self._absence(UnavailableError)  # it is on its way down
            return await _error_of(response, path)
        finally:
            response.close()

    def _refuse_stranger(self, status: int) -> None:
        """What speaks of our settings, or of a proxy before the engine, is no answer to the client.

        Raises: UnreachableError.
        """
        if not self._where.elsewhere:
            return
        if status in (401, 403):
            raise UnreachableError(f"{self.name} does not accept our key", hint="set engine.api_key_file")
        if 300 <= status < 400:
            raise UnreachableError(f"{self.name} is a redirect", hint="set engine.urls to where it leads")
        if status in (502, 503, 504):
            raise self._absence(UnreachableError)

    async def unload_adapter(self, name: str) -> None:
        """Has the engine forget an adapter. One that is down or never knew it has nothing to forget; one that fails
        at it keeps what nobody can name any more."""
        await self._adapters.unload(name)

    def knows_adapter(self, name: str) -> bool:
        return name in self._adapters.known

    @property
    def name(self) -> str:
        return self._where.name

    def late(self) -> "LateError":
        return LateError(f"{self._where.name} gave no answer in time", hint="ask again, or for less")

    def lost(self) -> UnavailableError:
        self._adapters.forget_all()
        return self._absence(LostError)

    def _absence(self, kind: type[UnavailableError]) -> UnavailableError:
        job = self._where.job()
        if job is not None:
            return kind(
                f'the engine is stopped while {job} trains (gpu.sharing = "stop")',
                hint="ask again when it has ended",
            )
        return kind(
            f"{self._where.name} is not up: it is starting or being restarted",
            hint="ask again in a few seconds",
            retry_after_seconds=self._where.retry_after_seconds(),
        )


class Exchange:
    """A request, and its response for as long as the block lasts. (Each answer takes one: a generator for a context
    costs more.)"""

    def __init__(
        self,
        client: EngineClient,
        path: str,
        body: dict[str, Any],
        adapter: Adapter | None,
        headers: Mapping[str, str],
    ):
        self._client = client
        self._asked = (path, body, adapter, headers)

    async def __aenter__(self) -> EngineResponse:
        self._response = await self._client.open(*self._asked)
        return self._response

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Raises: LateError, LostError instead of what befell the connection during the block."""
        self._response.close()
        if isinstance(error, TimeoutError):
            raise self._client.late() from None
        if isinstance(error, BrokenError):
            raise self._client.lost() from None


class UnreachableError(UnavailableError):
    """No connection came about: the request was not even sent, and another engine may have it."""


class LostError(UnavailableError):
    """The connection broke: the engine may have died of this very request."""


class LateError(UnavailableError):
    """The engine has the request and says nothing."""


class EngineError(LocalLLMError):
    """The engine refused a request. Its status and words are kept, its shape is ours."""

    def __init__(self, status: int, message: str, param: str | None):
        super().__init__(message, param=param)
        self.status = status
        self.type = "invalid_request_error" if status < 500 else "server_error"


class PromptTooLongError(EngineError):
    """Clients know it by its code: they cut the conversation, or take another model."""

    code = "context_length_exceeded"


# What vLLM calls the length of a prompt that does not fit.
_TOO_LONG = "input_tokens"
# How it tells of a body that has not the right shape: one of pydantic's errors as Python writes it.
_MISSHAPEN = re.compile(r"""'loc': '(?:body\.)?([^']*)', 'msg': (?:"([^"]*)"|'([^']*)')""")


def _readable(message: str) -> str:
    wrong = [f"{where}: {one or other}" for where, one, other in _MISSHAPEN.findall(message)]
    return "; ".join(wrong) or message


def error_of(status: int, error: Mapping[str, Any], path: str) -> EngineError:
    """The engine's error as ours. `path` is what was asked. Raises: KeyError, TypeError if it is none."""
    message, param = error["message"], error.get("param")
    if param == _TOO_LONG:
        sent = "prompt" if path.endswith("/v1/completions") else "messages"
        return PromptTooLongError(status, message, sent)
    return EngineError(status, _readable(message), param and param.removeprefix("body."))


async def _error_of(response: EngineResponse, path: str) -> EngineError:
    data = await response.read()
    try:
        return error_of(response.status, json.loads(data)["error"], path)
    except (ValueError, KeyError, TypeError):
        text = data.decode(errors="replace")[:500]
        return EngineError(response.status, text or f"the engine answered {response.status}", None)
