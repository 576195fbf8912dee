"""Vector stores made, listed and searched, through the index server."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from index.interface import ID_PREFIX, CollectionInfo, Hit
from local_llm.errors import ConflictError, NotFoundError
from local_llm.identifiers import is_name
from local_llm.permissions import Caller
from serving.services import Services
from serving.vector_stores.answers import Json, score_of, store_as_json
from serving.vector_stores.requests import CreateStore, Search, UpdateStore


@dataclass(frozen=True)
class Listing:
    after: str | None
    before: str | None
    limit: int
    order: str


@contextmanager
def named(store_id: str) -> Iterator[None]:
    """Tells of a missing collection as the API does."""
    try:
        yield
    except NotFoundError as error:
        if error.param == "collection":
            raise _no_store(store_id) from None
        raise


async def id_of(services: Services, caller: Caller, store_id: str) -> str:
    """Paths may name a store as commands do; answers have its id. Raises: NotFoundError."""
    if store_id.startswith(ID_PREFIX):
        return store_id
    with named(store_id):
        return (await services.index.get(caller, store_id)).id


async def shown(services: Services, caller: Caller, infos: Sequence[CollectionInfo]) -> list[Json]:
    usage = await services.index.files.usage(caller, [info.id for info in infos])
    return [store_as_json(info, used) for info, used in zip(infos, usage, strict=True)]


async def create(services: Services, caller: Caller, asked: CreateStore) -> CollectionInfo:
    """All that can be wrong with its files is asked before it is made."""
    attachments = asked.attachments()
    if attachments:
        await services.index.files.check(caller, attachments)
    info = await _create(services, caller, asked)
    if attachments:
        await services.index.files.attach(caller, info.id, attachments)
    return info


async def _create(services: Services, caller: Caller, asked: CreateStore) -> CollectionInfo:
    """Named as the client says, so that commands know it by that name too; if it cannot be, that is its title."""
    days = None if asked.expires_after is None else asked.expires_after.days
    name = asked.name
    if name and is_name(name) and not name.startswith(ID_PREFIX):
        try:
            return await services.index.create(caller, name, metadata=asked.metadata, expires_after_days=days)
        except ConflictError:
            pass
    return await services.index.create(caller, title=name, metadata=asked.metadata, expires_after_days=days)


async def update(services: Services, caller: Caller, store_id: str, asked: UpdateStore) -> CollectionInfo:
    """A name given is the title from then on. Null takes name, metadata or expiry away."""
    given = asked.model_fields_set
    return await services.index.update(
        caller,
        store_id,
        title=(asked.name or "") if "name" in given else None,
        metadata=(asked.metadata or {}) if "metadata" in given else None,
        expires_after_days=None if asked.expires_after is None else asked.expires_after.days,
        never_expires="expires_after" in given and asked.expires_after is None,
    )


def page_of(infos: Sequence[CollectionInfo], listing: Listing) -> tuple[list[CollectionInfo], bool]:
    """By time. Returns: a page, and whether there is more in its direction.

    Raises: NotFoundError if `after` or `before` is none of them.
    """
    ordered = sorted(infos, key=lambda info: (info.created_at, info.id), reverse=listing.order == "desc")
    if listing.before is not None and listing.after is None:
        ahead = ordered[: _position(ordered, listing.before)]
        return ahead[-listing.limit :], len(ahead) > listing.limit
    start = 0 if listing.after is None else _position(ordered, listing.after) + 1
    rest = ordered[start:]
    return rest[: listing.limit], len(rest) > listing.limit


async def search(services: Services, caller: Caller, store_id: str, asked: Search) -> list[Hit]:
    """The best of all queries, each passage once, by its best score."""
    info = await services.index.get(caller, store_id)
    best: dict[int, Hit] = {}
    for query in asked.queries:
        found = await services.index.find(
            caller,
            info.id,
            query,
            asked.max_num_results,
            filters=asked.filters,
            ranking=asked.ranking(info.ranking),
        )
        services.observer.searched(found)
        for hit in found.hits:
            if hit.passage_id not in best or best[hit.passage_id].score < hit.score:
                best[hit.passage_id] = hit
    ranked = sorted(best.values(), key=lambda hit: hit.score, reverse=True)
    return [hit for hit in ranked[: asked.max_num_results] if score_of(hit) >= asked.threshold]


def _position(ordered: Sequence[CollectionInfo], store_id: str) -> int:
    for at, info in enumerate(ordered):
        if info.id == store_id:
            return at
    raise _no_store(store_id)


def _no_store(store_id: str) -> NotFoundError:
    return NotFoundError(f"No vector store found with id '{store_id:.80}'.", param="vector_store_id")
