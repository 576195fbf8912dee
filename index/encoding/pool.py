"""Encoders that are loaded: a few at most, each by the first who needs it."""

import threading
from collections import OrderedDict
from pathlib import Path

from index.encoding.encoder import Encoder
from index.encoding.recipe import Precision, fingerprint_of

# A collection's own, and during `reembed` the one that it moves to.
MOST_LOADED = 2


class EncoderPool:
    """May be asked from any thread. The one unused for longest goes; who still holds it may finish with it."""

    def __init__(self, device: str, derived: Path, most: int = MOST_LOADED):
        self._device = device
        self._derived = derived
        self._most = most
        self._loaded: OrderedDict[str, Encoder] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, precision: Precision) -> Encoder:
        """The encoder of a model's folder.

        Raises: as Encoder.
        """
        fingerprint = fingerprint_of(path, precision)
        # Held while one loads: two at once would need twice the memory, and often be the same.
        with self._lock:
            encoder = self._loaded.get(fingerprint) or Encoder(path, self._device, precision, self._derived)
            self._loaded[fingerprint] = encoder
            self._loaded.move_to_end(fingerprint)
            while len(self._loaded) > self._most:
                self._loaded.popitem(last=False)
            return encoder

    def loaded(self) -> list[Encoder]:
        """The last used comes last."""
        with self._lock:
            return list(self._loaded.values())

    def clear(self) -> None:
        with self._lock:
            self._loaded.clear()
