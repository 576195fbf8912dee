"""The cross-encoders of the model store, loaded by the first search that names them."""

import threading
from collections.abc import Callable
from pathlib import Path

from index.ranking.search import Scores
from local_llm.models import ModelStore

Load = Callable[[Path, str], Scores]
"""What makes of a model's folder and a device what scores texts."""


def load_reranker(path: Path, device: str) -> Scores:
    from index.encoding.reranker import Reranker

    return Reranker(path, device).scores


class Rerankers:
    """Its methods may be called from several threads."""

    def __init__(self, models: ModelStore, device: str, load: Load = load_reranker):
        self._models = models
        self._device = device
        self._load = load
        self._loaded: dict[str, Scores] = {}
        self._lock = threading.Lock()

    def check(self, name: str) -> None:
        """Raises: ModelNotFoundError, IntegrityError; InvalidInputError if it is no reranker."""
        self._models.get(name, "reranker")

    def get(self, name: str) -> Scores:
        """Raises: as check()."""
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(self._models.get(name, "reranker").path, self._device)
            return self._loaded[name]
