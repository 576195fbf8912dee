"""LangChain's own tests for vector stores."""

import pytest

pytest.importorskip("langchain_tests", reason="the development requirements are not installed")

from langchain_core.vectorstores import VectorStore
from langchain_store import CollectionStore
from langchain_tests.integration_tests.vectorstores import EMBEDDING_SIZE, VectorStoreIntegrationTests

from index.service import IndexService
from local_llm.identifiers import new_id
from local_llm.permissions import Caller


@pytest.mark.anyio  # runs the coroutines among the tests
class TestLangChain(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, service: IndexService, admin: Caller) -> VectorStore:
        collection = service.create(admin, new_id("test-"), dimension=EMBEDDING_SIZE).name
        return CollectionStore(service, admin, collection, self.get_embeddings())

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"
