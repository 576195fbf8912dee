"""Citations checked when they leave: what was replaced, deleted or closed meanwhile is cited no more."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from index.client import AsyncIndexClient
from index.interface import Hit
from local_llm.errors import LocalLLMError
from local_llm.permissions import Caller

# A look-up takes a millisecond; nobody's answer is held up by an index server that hangs.
LONGEST_SECONDS = 2.0


@dataclass(frozen=True)
class Standing:
    """Looks up whether passages still stand as they were put before the model."""

    index: AsyncIndexClient
    caller: Caller

    async def gone(self, hits: Sequence[Hit], numbers: Iterable[int]) -> frozenset[int]:
        """Which of these passages (numbered from 1) do not stand any more.

        All of them, if the index cannot be asked: what was not checked is not cited.
        """
        cited = frozenset(numbers)
        documents: dict[str, set[tuple[str, int]]] = {}
        for number in cited:
            hit = hits[number - 1]
            documents.setdefault(hit.collection, set()).add((hit.document_id, hit.version))
        still: set[tuple[str, str, int]] = set()
        for collection, versions in documents.items():
            still |= {(collection, *one) for one in await self._current(collection, sorted(versions))}
        return frozenset(number for number in cited if _key(hits[number - 1]) not in still)

    async def _current(self, collection: str, versions: list[tuple[str, int]]) -> list[tuple[str, int]]:
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                return await self.index.current(self.caller, collection, versions)
        except (LocalLLMError, TimeoutError):
            return []


def _key(hit: Hit) -> tuple[str, str, int]:
    return hit.collection, hit.document_id, hit.version
