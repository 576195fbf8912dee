"""The embedding of LlamaIndex's that embeds nothing."""

from llama_index.core.base.embeddings.base import BaseEmbedding


class EncodedByCollection(BaseEmbedding):  # type: ignore[misc]
    """Stands where LlamaIndex wants an embedding model and the collection's own encoder does its work.

    Every embedding is empty. Without it LlamaIndex would look for a hosted model, or encode all twice.
    """

    model_name: str = "encoded by the collection"

    @classmethod
    def class_name(cls) -> str:
        return "EncodedByCollection"

    def _get_query_embedding(self, query: str) -> list[float]:  # noqa: ARG002
        return []

    async def _aget_query_embedding(self, query: str) -> list[float]:  # noqa: ARG002
        return []

    def _get_text_embedding(self, text: str) -> list[float]:  # noqa: ARG002
        return []
