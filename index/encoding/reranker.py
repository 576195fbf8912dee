"""Passages scored together with the query, by a cross-encoder that the user brings."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BATCH = 32


class Reranker:
    """`path` is a folder of the model store, `device` is "auto", "cpu" or "cuda". One call runs at a time."""

    def __init__(self, path: Path, device: str):
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        from sentence_transformers import CrossEncoder
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self._model = CrossEncoder(
            str(path),
            device=None if device == "auto" else device,
            local_files_only=True,
            trust_remote_code=False,
        )
        self._lock = threading.Lock()

    def scores(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """The higher, the more a text answers the query. Returns: float32 [texts]."""
        if not texts:
            return np.empty(0, np.float32)
        with self._lock:
            found = self._model.predict(
                [(query, text) for text in texts], batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True
            )
        return np.asarray(found, dtype=np.float32).reshape(len(texts))
