"""A collection as a retriever of LlamaIndex."""

import asyncio

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery

from index.interface import Ranking
from index.llama_index.vector_store import CollectionVectorStore
from local_llm.errors import InvalidInputError


class CollectionRetriever(BaseRetriever):  # type: ignore[misc]
    """Passages of a collection, best first. Those of documents carry a citation in `metadata["citation"]`.

    `embed_model` only for collections without an encoder, where queries bring no embedding of their own.
    """

    def __init__(
        self,
        store: CollectionVectorStore,
        *,
        similarity_top_k: int = 5,
        filters: MetadataFilters | None = None,
        ranking: Ranking | None = None,
        embed_model: BaseEmbedding | None = None,
        callback_manager: CallbackManager | None = None,
    ):
        super().__init__(callback_manager=callback_manager)
        self._store = store
        self._similarity_top_k = similarity_top_k
        self._filters = filters
        self._ranking = ranking
        self._embed_model = embed_model

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        query = VectorStoreQuery(
            query_str=query_bundle.query_str,
            query_embedding=self._embedding(query_bundle),
            similarity_top_k=self._similarity_top_k,
            filters=self._filters,
        )
        found = self._store.query(query, ranking=self._ranking)
        return [
            NodeWithScore(node=node, score=score)
            for node, score in zip(found.nodes, found.similarities, strict=True)
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _embedding(self, query_bundle: QueryBundle) -> list[float] | None:
        if query_bundle.embedding is not None or not self._store.is_embedding_query:
            return query_bundle.embedding
        if self._embed_model is None:
            raise InvalidInputError(
                f"the collection {self._store.collection!r} has no encoder and the query no embedding",
                hint="CollectionRetriever(store, embed_model=...)",
            )
        return self._embed_model.get_agg_embedding_from_queries(query_bundle.embedding_strs)
