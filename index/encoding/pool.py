"""Encoders that are loaded: a few at most, each by the first who needs it."""

import threading
from collections import OrderedDict
from pathlib import Path

from index.encoding.encoder import Encoder
from local_llm.encoder_recipe import Precision

# A collection's own, and during `reembed` the one that it moves to.
MOST_LOADED = 2

_Key = tuple[Path, Precision]


class EncoderPool:
    """May be asked from any thread. The one unused for longest goes; who still holds it may finish with it."""

    def __init__(self, device: str, derived: Path, most: int = MOST_LOADED):
        self._device = device
        self._derived = derived
        self._most = most
        self._loaded: OrderedDict[_Key, Encoder] = OrderedDict()
        self._lock = threading.Lock()
        # Held while one loads: two at once would need twice the memory, and often be the same.
        self._loading = threading.Lock()

    def get(self, path: Path, precision: Precision) -> Encoder:
        """The encoder of a model's folder. Who asks for one that is loaded waits for nobody.

        Raises: as Encoder.
        """
        key = (path, precision)
        encoder = self._find(key)
        if encoder is None:
            with self._loading:
                encoder = self._find(key) or Encoder(path, self._device, precision, self._derived)
                self._keep(key, encoder)
        return encoder

    def loaded(self) -> list[Encoder]:
        """The last used comes last."""
        with self._lock:
            return list(self._loaded.values())

    def clear(self) -> None:
        with self._lock:
            self._loaded.clear()

    def _find(self, key: _Key) -> Encoder | None:
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
            return self._loaded.get(key)

    def _keep(self, key: _Key, encoder: Encoder) -> None:
        with self._lock:
            self._loaded[key] = encoder
            while len(self._loaded) > self._most:
                self._loaded.popitem(last=False)
