"""Which encoder a collection has, and that it is still the one it was built with."""

from pathlib import Path

from index.collection.live_view import Generation
from index.encoding.converted import precision_for
from index.encoding.encoder import Encoder
from index.encoding.pool import EncoderPool
from index.interface import EXTERNAL
from local_llm.encoder_recipe import Precision, fingerprint_of, precision_bound_to
from local_llm.errors import ConflictError
from local_llm.models import ModelStore
from local_llm.settings import Settings


class Encoders:
    """Those of the model store, loaded when first needed. May be asked from any thread."""

    def __init__(self, settings: Settings):
        self._default = settings.index.encoder
        self._precision = settings.index.precision
        self._device = settings.index.device
        self._derived = settings.place.ensure().derived
        self._models = ModelStore(settings.place.models)
        self._pool = EncoderPool(self._device, self._derived)
        self._chosen: dict[str, tuple[Path, Precision]] = {}
        self._bound: dict[str, tuple[Path, Precision]] = {}

    def fingerprint(self, name: str | None = None) -> tuple[str, str]:
        """Name and fingerprint of an encoder (None: that of the settings) as it is used here.

        Raises: ModelNotFoundError, IntegrityError, ConflictError, SettingsError.
        """
        path, precision = self._choose(name or self._default)
        return path.name, fingerprint_of(path, precision)

    def get(self, name: str | None = None) -> Encoder:
        """Raises: as fingerprint()."""
        return self._pool.get(*self._choose(name or self._default))

    def of(self, generation: Generation, collection: str) -> Encoder:
        """Raises: ConflictError if the collection is bound to none, or to one that is here no longer as it was."""
        if generation.encoder == EXTERNAL:
            raise ConflictError(
                f"the collection {collection!r} has no encoder: its records and queries bring vectors",
                hint="send vectors, or create a collection with an encoder",
            )
        if generation.fingerprint not in self._bound:
            path = self._models.get(generation.encoder, "encoder").path
            precision = precision_bound_to(path, generation.fingerprint)
            if precision is None:
                raise ConflictError(
                    f"the collection {collection!r} was built with another encoder than the {generation.encoder!r} "
                    "that is here now: weights, pooling, prompts or precision differ",
                    hint=f"local-llm index reembed {collection}",
                )
            self._bound[generation.fingerprint] = (path, precision)
        return self._pool.get(*self._bound[generation.fingerprint])

    @property
    def any_loaded(self) -> bool:
        return bool(self._pool.loaded())

    def _choose(self, name: str) -> tuple[Path, Precision]:
        if name not in self._chosen:
            path = self._models.get(name, "encoder").path
            self._chosen[name] = (path, precision_for(path, self._precision, self._device, self._derived))
        return self._chosen[name]
