"""The gateway's side of vLLM: requests over the engine's Unix socket, adapters made known on first use."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from local_llm.errors import LocalLLMError, UnavailableError
from serving.bodies import dump_json

# A started engine answers /health at once; one that imports its libraries does not answer at all.
HEALTH_TIMEOUT_SECONDS = 2.0
ADAPTER_TIMEOUT_SECONDS = 120.0
UNLOAD_TIMEOUT_SECONDS = 10.0
METRICS_TIMEOUT_SECONDS = 2.0
# vLLM closes a connection that was idle for 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE): whoever then asks on it fails.
IDLE_SECONDS = 2.0

NO_HEADERS: Mapping[str, str] = {}


class EngineClient:
    """One engine. Call `close` when done."""

    def __init__(self, socket: Path, timeout_seconds: float, training_job: Callable[[], str | None]):
        """`training_job` tells for which job, as "job ftjob-…", the engine is stopped; None: for none."""
        self._training_job = training_job
        self._session = aiohttp.ClientSession(
            base_url="http://engine",
            connector=aiohttp.UnixConnector(path=str(socket), limit=0, keepalive_timeout=IDLE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
            auto_decompress=False,
        )
        self._known_adapters: set[str] = set()
        self._loading = asyncio.Lock()

    async def close(self) -> None:
        await self._session.close()

    async def ready(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_SECONDS)
        try:
            async with self._session.get("/health", timeout=timeout) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            # Whatever comes up next is another engine, which knows no adapters.
            self._known_adapters.clear()
            return False

    async def metrics(self) -> bytes:
        """What the engine says of itself to Prometheus; nothing if it is not up."""
        timeout = aiohttp.ClientTimeout(total=METRICS_TIMEOUT_SECONDS)
        try:
            async with self._session.get("/metrics", timeout=timeout) as response:
                return await response.read() if response.status == 200 else b""
        except (aiohttp.ClientError, TimeoutError):
            return b""

    @asynccontextmanager
    async def post(
        self, path: str, body: dict[str, Any], headers: Mapping[str, str] = NO_HEADERS
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An open response: read it, or stream it. Leaving the block early cancels the generation. `headers` hand
        on a trace.

        Raises: UnavailableError if the engine is down, EngineError on any status but 200.
        """
        try:
            async with self._session.post(
                path, data=dump_json(body), headers={"content-type": "application/json", **headers}
            ) as response:
                if response.status >= 500 and self._training_job() is not None:
                    raise self._absence()  # it is on its way down
                if response.status != 200:
                    raise await _error_of(response)
                yield response
        except TimeoutError:
            raise UnavailableError("the engine gave no answer in time", hint="ask again, or for less") from None
        except aiohttp.ClientError:
            self._known_adapters.clear()
            raise self._absence() from None

    async def load_adapter(self, name: str, path: Path) -> None:
        """Makes an adapter known to the engine, once."""
        if name in self._known_adapters:
            return
        async with self._loading:
            if name in self._known_adapters:
                return
            try:
                async with (
                    asyncio.timeout(ADAPTER_TIMEOUT_SECONDS),
                    self.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)}),
                ):
                    pass
            except TimeoutError:
                raise UnavailableError(f"the engine did not load {name} in time", hint="ask again") from None
            except EngineError as error:
                if "already been loaded" not in error.message:
                    raise
            self._known_adapters.add(name)

    async def unload_adapter(self, name: str) -> None:
        """Has the engine forget an adapter. One that is down or never knew it has nothing to forget; one that fails
        at it keeps what nobody can name any more."""
        async with self._loading:
            self._known_adapters.discard(name)
            with suppress(TimeoutError, UnavailableError, EngineError):
                async with (
                    asyncio.timeout(UNLOAD_TIMEOUT_SECONDS),
                    self.post("/v1/unload_lora_adapter", {"lora_name": name}),
                ):
                    pass

    def knows_adapter(self, name: str) -> bool:
        return name in self._known_adapters

    def forget_adapter(self, name: str) -> None:
        self._known_adapters.discard(name)

    def _absence(self) -> UnavailableError:
        job = self._training_job()
        if job is not None:
            return UnavailableError(
                f'the engine is stopped while {job} trains (gpu.sharing = "stop")',
                hint="ask again when it has ended",
            )
        return UnavailableError(
            "the engine is not up: it is starting or being restarted", hint="ask again in a few seconds"
        )


class EngineError(LocalLLMError):
    """The engine refused a request. Its status and words are kept, its shape is ours."""

    def __init__(self, status: int, message: str, param: str | None):
        super().__init__(message, param=param)
        self.status = status
        self.type = "invalid_request_error" if status < 500 else "server_error"


async def _error_of(response: aiohttp.ClientResponse) -> EngineError:
    try:
        error = (await response.json(content_type=None))["error"]
        return EngineError(response.status, error["message"], error.get("param"))
    except (ValueError, KeyError, TypeError):
        text = (await response.text())[:500]
        return EngineError(response.status, text or f"the engine answered {response.status}", None)
