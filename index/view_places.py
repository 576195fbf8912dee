"""Which collection's vectors are held where, by the settings."""

from pathlib import Path

from index.collection.live_view import InMemory
from index.collection.views import Views
from index.milvus.client import MilvusOptions
from index.milvus.views import OnMilvus
from index.vectors.view import ViewOptions
from local_llm.index_settings import IndexSettings


class ViewPlaces:
    def __init__(self, settings: IndexSettings):
        self._settings = settings
        self._in_memory = InMemory(self._options)
        self._on_milvus = OnMilvus(_milvus_options(settings)) if settings.milvus_uri else None

    def close(self) -> None:
        if self._on_milvus is not None:
            self._on_milvus.close()

    def of(self, identifier: str) -> Views:
        """For the collection with this id."""
        chosen = self._settings.milvus_collections
        if self._on_milvus is None or (chosen and identifier not in chosen):
            return self._in_memory
        return self._on_milvus

    def forget(self, database: Path) -> None:
        """For a collection that was deleted: nothing of it stays elsewhere. Raises: UnavailableError."""
        if self._on_milvus is not None:
            self._on_milvus.forget(database)

    def _options(self, dimension: int) -> ViewOptions:
        chosen = self._settings
        return ViewOptions(
            dimension=dimension,
            device=chosen.device,
            structure=chosen.structure,
            target_recall=chosen.target_recall,
        )


def _milvus_options(settings: IndexSettings) -> MilvusOptions:
    return MilvusOptions(
        uri=settings.milvus_uri,
        token_file=settings.milvus_token_file,
        prefix=settings.milvus_prefix,
        timeout_seconds=settings.milvus_timeout_seconds,
        exact=settings.structure == "exact",
        target_recall=settings.target_recall,
    )
