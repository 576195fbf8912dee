"""What is searched for a question, and what is found."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from index.interface import Hit, Ranking
from local_llm.permissions import Caller
from local_llm.profiles import Profile
from serving.services import Services
from serving.vector_stores.answers import score_of


@dataclass(frozen=True)
class Retrieval:
    """Collections to be searched, and the best `k` of all that is found there.

    `minimum_score` in 0..1. `reranked`: as the collection is set; False: without its re-ranker. `prompt` and
    `only_from_context` decide what is said before the passages (prompts.instruction_of); `rewrite`: whether
    follow-up questions are made self-contained first; `refusal`: what is said where nothing holds the answer. None:
    as the settings say.
    """

    collections: tuple[str, ...]
    k: int
    filters: Mapping[str, Any] | None = None
    minimum_score: float = 0.0
    reranked: bool = True
    prompt: str | None = None
    only_from_context: bool = True
    rewrite: bool | None = None
    refusal: str | None = None


def retrieval_for(asked: Retrieval | None, profile: Profile | None) -> Retrieval | None:
    """What a request asks to be searched, else what its profile does. The profile's prompt stays in both cases."""
    if profile is None or not profile.retrieves or profile.collection is None:
        return asked
    if asked is not None:
        return replace(asked, **_words_of(profile))
    return Retrieval((profile.collection,), profile.k, **_words_of(profile))


def _words_of(profile: Profile) -> dict[str, Any]:
    return {
        "prompt": profile.prompt,
        "only_from_context": profile.answer_only_from_context,
        "rewrite": profile.rewrite,
        "refusal": profile.refusal,
    }


async def retrieve(services: Services, caller: Caller, retrieval: Retrieval, query: str) -> list[Hit]:
    """The best passages that the caller may see, each once, best first.

    Raises: NotFoundError, InvalidInputError, UnavailableError.
    """
    searches = (_search(services, caller, retrieval, collection, query) for collection in retrieval.collections)
    found = [hit for hits in await asyncio.gather(*searches) for hit in hits]
    best = {(hit.collection, hit.passage_id): hit for hit in found if score_of(hit) >= retrieval.minimum_score}
    ranked = list(best.values())
    if len(retrieval.collections) > 1:
        ranked.sort(key=lambda hit: hit.score, reverse=True)
    return ranked[: retrieval.k]


async def _search(
    services: Services, caller: Caller, retrieval: Retrieval, collection: str, query: str
) -> list[Hit]:
    ranking = None
    if not retrieval.reranked:
        of_collection = (await services.index.get(caller, collection)).ranking
        ranking = Ranking(of_collection.lexical, None, of_collection.merged)
    return await services.index.search(
        caller, collection, query, retrieval.k, filters=retrieval.filters, ranking=ranking
    )
