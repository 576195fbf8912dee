"""The gateway's processes tell each other their numbers: whichever is asked for /metrics tells everybody's.

Each listens on a Unix socket in run/ and says its snapshot to whoever connects; the folder is its owner's alone.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local_llm.home import Home

ANSWER_SECONDS = 1.0

Snapshot = dict[str, Any]


class Siblings:
    """Of process `number` among `count`. Call `listen` when the loop runs, and `close` when done."""

    def __init__(self, place: Home, number: int, count: int, snapshot: Callable[[], Snapshot]):
        self._place = place
        self._count = count
        self._snapshot = snapshot
        self._server: asyncio.Server | None = None
        self.number = number

    async def listen(self) -> None:
        if self._count > 1:
            path = self._path(self.number)
            path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._tell, path)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def own(self) -> Snapshot:
        """This process's."""
        return self._snapshot()

    async def snapshots(self) -> dict[str, Snapshot]:
        """Everybody's by number, ours too. One that is not up, or busy, is left out."""
        others = [number for number in range(self._count) if number != self.number]
        told = await asyncio.gather(*(self._ask(number) for number in others))
        found = {str(number): one for number, one in zip(others, told, strict=True) if one is not None}
        return {str(self.number): self._snapshot(), **found}

    async def _tell(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(self._snapshot()).encode())
        writer.close()

    async def _ask(self, number: int) -> Snapshot | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._path(number))
                try:
                    snapshot: Snapshot = json.loads(await reader.read())
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError):
            return None
        return snapshot

    def _path(self, number: int) -> Path:
        return self._place.socket(f"gateway-{number}")
