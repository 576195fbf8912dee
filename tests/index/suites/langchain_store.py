"""A collection as a vector store of LangChain: for its suite, and as an example."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from index.interface import Index, Record
from local_llm.identifiers import new_id
from local_llm.permissions import Caller

# An attribute: JSON of the document's metadata.
METADATA = "_metadata"


class CollectionStore(VectorStore):
    """Of a collection that was created with the dimension of `embeddings`."""

    def __init__(self, index: Index, caller: Caller, collection: str, embeddings: Embeddings):
        self._index = index
        self._where = (caller, collection)
        self._embeddings = embeddings

    @property
    def embeddings(self) -> Embeddings:
        return self._embeddings

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **_: Any,
    ) -> list[str]:
        texts = list(texts)
        rows = zip(
            ids or [None] * len(texts),
            texts,
            metadatas or [{}] * len(texts),
            self._embeddings.embed_documents(texts),
            strict=True,
        )
        records = [
            Record(name or new_id("text_"), text, attributes=_attributes(metadata), vector=vector)
            for name, text, metadata, vector in rows
        ]
        self._index.put(*self._where, records)
        return [record.name for record in records]

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool:
        self._index.remove_matching(*self._where, names=ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        found = self._index.records(*self._where, names=list(ids))
        return [_document(one.name, one.text, one.attributes) for one in found]

    def similarity_search(self, query: str, k: int = 4, *, filter: Any = None, **_: Any) -> list[Document]:
        vector = self._embeddings.embed_query(query)
        hits = self._index.search(*self._where, vector, k, filters=filter)
        return [_document(hit.document, hit.text, hit.attributes) for hit in hits]

    @classmethod
    def from_texts(cls, texts: list[str], embedding: Embeddings, *_: Any, **__: Any) -> "CollectionStore":
        raise NotImplementedError("a collection belongs to an index and a caller: CollectionStore(...)")


def _attributes(metadata: dict[str, Any]) -> dict[str, Any]:
    scalars = {key: value for key, value in metadata.items() if isinstance(value, str | int | float)}
    return {**scalars, METADATA: json.dumps(metadata)}


def _document(name: str, text: str, attributes: Any) -> Document:
    return Document(id=name, page_content=text, metadata=json.loads(attributes[METADATA]))
