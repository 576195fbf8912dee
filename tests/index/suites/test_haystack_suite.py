"""Haystack's own tests for document stores."""

import pytest

pytest.importorskip("haystack", reason="the development requirements are not installed")

from haystack.dataclasses import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.errors import FilterError
from haystack.testing.document_store import DocumentStoreBaseExtendedTests
from haystack_store import CollectionDocumentStore

from index.service import IndexService
from local_llm.permissions import Caller


class TestHaystack(DocumentStoreBaseExtendedTests):
    @pytest.fixture
    def document_store(self, service: IndexService, admin: Caller, collection: str) -> CollectionDocumentStore:
        return CollectionDocumentStore(service, admin, collection)

    def test_write_documents(self, document_store: CollectionDocumentStore) -> None:
        """The suite leaves this one to each store: what it does where no policy is given."""
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])
        assert document_store.filter_documents() == [document]

    @pytest.mark.xfail(strict=True, raises=FilterError, reason="filters cannot ask for documents that lack a field")
    def test_comparison_equal_with_none(self, document_store, filterable_docs) -> None:
        super().test_comparison_equal_with_none(document_store, filterable_docs)
