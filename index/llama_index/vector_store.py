"""A collection as a vector store of LlamaIndex."""

import asyncio
from collections.abc import Sequence
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from index.interface import EXTERNAL, Index, Ranking
from index.llama_index.filters import Json, filter_of, joined
from index.llama_index.nodes import ID, REF_DOC_ID, as_record, node_of_hit, node_of_record
from local_llm.errors import InvalidInputError
from local_llm.permissions import Caller


class CollectionVectorStore(BasePydanticVectorStore):  # type: ignore[misc]
    """One collection of an index, as one caller sees it.

    A collection with an encoder is given text and asked with text (`is_embedding_query` is False): embeddings of
    nodes are not used. One that was created with a `dimension` is given and asked with vectors.

    Nodes are added by their ids: adding one again replaces it.

    Raises: NotFoundError if the caller has no such collection; all methods what those of `Index` raise.
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    collection: str

    _index: Index = PrivateAttr()
    _caller: Caller = PrivateAttr()

    def __init__(self, index: Index, caller: Caller, collection: str):
        brings_vectors = index.get(caller, collection).encoder == EXTERNAL
        super().__init__(stores_text=True, is_embedding_query=brings_vectors, collection=collection)
        self._index = index
        self._caller = caller

    @classmethod
    def class_name(cls) -> str:
        return "CollectionVectorStore"

    @property
    def client(self) -> Index:
        return self._index

    def add(self, nodes: Sequence[BaseNode], *, allow: Sequence[str] | None = None) -> list[str]:
        """Adds or replaces nodes, all or none. `allow` as in Index.put. Returns: their ids."""
        records = [as_record(node, with_vector=self.is_embedding_query) for node in nodes]
        self._index.put(self._caller, self.collection, records, allow=allow)
        return [record.name for record in records]

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Those that are there, of these ids (None: of any), that pass the filters."""
        found = self._index.records(self._caller, self.collection, names=node_ids, filters=filter_of(filters))
        return [node_of_record(record) for record in found]

    def delete(self, ref_doc_id: str) -> None:
        """Deletes the nodes that were made of this document; none is no error."""
        of_document = {"type": "eq", "key": REF_DOC_ID, "value": ref_doc_id}
        self._index.remove_matching(self._caller, self.collection, filters=of_document)

    def delete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> None:
        """Deletes the nodes of these ids that pass the filters; none is no error.

        Raises: InvalidInputError if neither is given: to delete all is clear().
        """
        wanted = filter_of(filters)
        if node_ids is None and wanted is None:
            raise InvalidInputError("neither node_ids nor filters were given", hint="to delete all: clear()")
        self._index.remove_matching(self._caller, self.collection, names=node_ids, filters=wanted)

    def clear(self) -> None:
        """Deletes every document that the caller sees."""
        self._index.remove_matching(self._caller, self.collection)

    def query(self, query: VectorStoreQuery, *, ranking: Ranking | None = None) -> VectorStoreQueryResult:
        """The nodes that answer best. Similarities are cosines where nothing else ranks; see `Ranking`."""
        hits = self._index.search(
            self._caller,
            self.collection,
            self._asked(query),
            query.similarity_top_k,
            filters=_filter_of_query(query),
            ranking=ranking,
        )
        nodes = [node_of_hit(hit) for hit in hits]
        return VectorStoreQueryResult(
            nodes=nodes, similarities=[hit.score for hit in hits], ids=[node.node_id for node in nodes]
        )

    async def async_add(self, nodes: Sequence[BaseNode], *, allow: Sequence[str] | None = None) -> list[str]:
        return await asyncio.to_thread(self.add, nodes, allow=allow)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def adelete(self, ref_doc_id: str) -> None:
        await asyncio.to_thread(self.delete, ref_doc_id)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> None:
        await asyncio.to_thread(self.delete_nodes, node_ids, filters)

    async def aclear(self) -> None:
        await asyncio.to_thread(self.clear)

    async def aquery(self, query: VectorStoreQuery, *, ranking: Ranking | None = None) -> VectorStoreQueryResult:
        return await asyncio.to_thread(self.query, query, ranking=ranking)

    def _asked(self, query: VectorStoreQuery) -> str | list[float]:
        if query.mode != VectorStoreQueryMode.DEFAULT:
            raise InvalidInputError(
                f"the query mode {query.mode.value!r} is not known here; expected the default",
                hint="a collection is ranked as it is set: Index.update(ranking=...), or query(..., ranking=...)",
                param="mode",
            )
        asked: str | list[float] | None = query.query_embedding if self.is_embedding_query else query.query_str
        if asked is None:
            missing = "query_embedding" if self.is_embedding_query else "query_str"
            raise InvalidInputError(f"the collection {self.collection!r} is asked with {missing}", param=missing)
        return asked


def _filter_of_query(query: VectorStoreQuery) -> Json | None:
    """Empty lists of ids restrict nothing: retrievers hand them over where they know of no ids."""
    parts = [filter_of(query.filters), _among(REF_DOC_ID, query.doc_ids), _among(ID, query.node_ids)]
    return joined("and", [part for part in parts if part is not None])


def _among(key: str, values: list[str] | None) -> dict[str, Any] | None:
    return {"type": "in", "key": key, "value": list(values)} if values else None
