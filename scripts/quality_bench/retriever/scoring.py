"""How well an encoder ranks all documents for the questions; encoded and measured once, and kept."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from local_llm.cli.output import progress_bar, talk
from local_llm.relevance import CUT, Measures, as_array, measure
from quality_bench.retriever.data import TestSet

if TYPE_CHECKING:
    from training.retriever.encoding import Encoder

Array = NDArray[np.float32]


class Scorer:
    """An encoder's folder by the name `name`; what it takes long to make is kept in `kept`. Encoded as training
    does it: models are compared, not the engines that run them."""

    def __init__(self, name: str, folder: Path, kept: Path, device: str = "auto"):
        self._name, self._folder, self._kept, self._device = name, folder, kept, device

    def measures(self, test: TestSet) -> list[Measures]:
        """Of each question."""
        path = self._path(test, "measures")
        return [Measures(*row) for row in _kept(path, lambda: as_array(self._measured(test))).tolist()]

    def _measured(self, test: TestSet) -> list[Measures]:
        asked = [one.text for one in test.questions]
        documents = _kept(
            self._path(test, "documents"), lambda: self._told("documents", self._encoder.documents, test.texts)
        )
        questions = _kept(
            self._path(test, "questions"), lambda: self._told("questions", self._encoder.queries, asked)
        )
        return ranking_measures(test, documents, questions)

    def _path(self, test: TestSet, what: str) -> Path:
        return self._kept / f"{self._name}-{test.name}-{len(test.questions)}-{what}.npy"

    def _told(self, what: str, encode: Callable[..., Array], texts: Sequence[str]) -> Array:
        started = time.perf_counter()
        with progress_bar(f"{self._name}: {what}") as bar:
            vectors = encode(texts, bar)
        seconds = time.perf_counter() - started
        talk(f"{self._name}: {len(texts)} {what} in {seconds:.0f} s, {len(texts) / seconds:.0f}/s")
        return vectors

    @cached_property
    def _encoder(self) -> "Encoder":
        from training.retriever.encoding import Encoder

        return Encoder(self._folder, self._device)


def ranking_measures(test: TestSet, documents: Array, questions: Array) -> list[Measures]:
    """`documents` [documents, d] and `questions` [questions, d], rows of length 1."""
    from training.retriever.ranking import rank_vectors

    ranked = rank_vectors(documents, test.ids, questions, depth=CUT)
    return [measure(found, one.gold) for found, one in zip(ranked, test.questions, strict=True)]


def _kept(path: Path, make: Callable[[], Any]) -> NDArray[Any]:
    if not path.exists():
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, made)
        partial.replace(path)
    return np.load(path)
