"""Which adapters one engine knows, and how it comes to know them: on first use, once, from verified files."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from local_llm.errors import ConflictError, LocalLLMError, UnavailableError
from local_llm.state import Adapter
from serving.engine_connection import EngineResponse

LOAD_TIMEOUT_SECONDS = 120.0
UNLOAD_TIMEOUT_SECONDS = 10.0
# So long an engine that refused an adapter is not asked again: what it lacks a person has to mend.
REFUSAL_SECONDS = 10.0
# vLLM's words for a rank above its --max-lora-rank.
RANK = "max_lora_rank"

log = logging.getLogger("local_llm.gateway")


class AdapterRefusedError(ConflictError):
    """An engine that is well cannot load an adapter that is whole."""


@dataclass(frozen=True)
class Refusal:
    at: float
    message: str
    hint: str


class Asked(Protocol):
    """The engine."""

    @property
    def name(self) -> str: ...

    def post(self, path: str, body: dict[str, Any]) -> AbstractAsyncContextManager[EngineResponse]: ...


class LoadedAdapters:
    def __init__(self, engine: Asked, verify: Callable[[Adapter], Path], path_there: Callable[[Path], str]):
        self._engine = engine
        self._verify = verify
        self._path_there = path_there
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._refusals: dict[str, Refusal] = {}
        self.known: set[str] = set()

    def forget(self, name: str) -> None:
        self.known.discard(name)

    def forget_all(self) -> None:
        self.known.clear()
        self._refusals.clear()

    async def load(self, adapter: Adapter) -> None:
        """Returns once the engine knows it. Many may wait for one loading, which goes on when they leave.

        Raises: AdapterRefusedError, UnavailableError; IntegrityError if its files are not the published ones.
        """
        refusal = self._refusals.get(adapter.name)
        if refusal is not None and time.monotonic() - refusal.at < REFUSAL_SECONDS:
            raise AdapterRefusedError(refusal.message, hint=refusal.hint, param="model")
        loading = self._loading.get(adapter.name)
        if loading is None:
            loading = self._loading[adapter.name] = asyncio.create_task(self._load(adapter))
            loading.add_done_callback(lambda task: self._note_end(adapter.name, task))
        await asyncio.shield(loading)

    async def unload(self, name: str) -> None:
        if name in self._loading:
            await asyncio.wait([self._loading[name]])
        self.forget(name)
        with suppress(TimeoutError, LocalLLMError):
            async with (
                asyncio.timeout(UNLOAD_TIMEOUT_SECONDS),
                self._engine.post("/v1/unload_lora_adapter", {"lora_name": name}),
            ):
                pass

    async def _load(self, adapter: Adapter) -> None:
        # Hashing it takes a while, and other answers stream meanwhile.
        folder = await asyncio.to_thread(self._verify, adapter)
        body = {"lora_name": adapter.name, "lora_path": self._path_there(folder)}
        try:
            async with (
                asyncio.timeout(LOAD_TIMEOUT_SECONDS),
                self._engine.post("/v1/load_lora_adapter", body),
            ):
                pass
        except TimeoutError:
            raise UnavailableError(f"{self._engine.name} did not load {adapter.name} in time") from None
        except UnavailableError:
            raise
        except LocalLLMError as error:  # it answered, and not with 200
            if "already been loaded" not in error.message:
                raise self._refusal(adapter, body["lora_path"], error) from None
        self.known.add(adapter.name)

    def _refusal(self, adapter: Adapter, path: str, error: LocalLLMError) -> AdapterRefusedError:
        """The engine's words go to the log: they may hold paths, which are nobody else's business."""
        log.error("%s cannot load %s from %s: %s", self._engine.name, adapter.name, path, error.message)
        if RANK in error.message:
            reason = f"it was started for smaller ranks than {adapter.rank}"
            hint = "start the server again, with engine.max_lora_rank = 'auto' or large enough"
        else:
            reason = "see gateway.log"
            hint = "for engines elsewhere: let them see the adapters folder, and set engine.remote_adapters_path"
        message = f"{self._engine.name} cannot load {adapter.name}: {reason}"
        self._refusals[adapter.name] = Refusal(time.monotonic(), message, hint)
        return AdapterRefusedError(message, hint=hint, param="model")

    def _note_end(self, name: str, task: asyncio.Task[None]) -> None:
        del self._loading[name]
        if not task.cancelled():
            task.exception()  # told to those who waited; if they all left, to nobody
