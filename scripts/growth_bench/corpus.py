"""A made corpus of any size: the same documents each time, in blocks, of which a larger corpus has more.

Texts: words drawn by Zipf's law with an offset (Mandelbrot 1953), the commonest of them English function words, so
that the index of words grows as one of real texts does in its postings. The number of distinct words is fixed: in
real texts it goes on growing, slowly.

Vectors: a topic, a document's own part, a passage's own part, all in FACTORS directions of falling weight, so that
near neighbours are near for a reason and there are fewer independent directions than numbers. On directions drawn
at random an approximate search would have to look at nearly all there is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from index.collection.stopwords import STOPWORDS

SEED = 8
PASSAGES_A_DOCUMENT = 4
WORDS_A_PASSAGE = 80  # about 128 tokens, the longest passage of the settings' default
BLOCK_DOCUMENTS = 100  # written in one transaction, as many as the ingestion's batches hold
BLOCK_PASSAGES = BLOCK_DOCUMENTS * PASSAGES_A_DOCUMENT
BUCKETS = 100  # an attribute that filters ask for: document number modulo this

VOCABULARY = 50_000
ZIPF_OFFSET = 2.7  # Source: Mandelbrot's fit for English.
TOPICS = 1000
FACTORS = 96
# Shares of topic, document and passage in a vector: neighbours of real sentences lie about as near (cosine 0.8).
WEIGHTS = (0.6, 0.6, 0.55)
QUESTION_STEP = 0.6
QUESTION_WORDS = 10
CONSONANTS, VOWELS = "bdfgklmnprtv", "aou"


@dataclass(frozen=True)
class Question:
    """vector: float32 [dimension], of length 1."""

    vector: np.ndarray
    text: str


class Corpus:
    def __init__(self, dimension: int):
        self.dimension = dimension

    def blocks(self, passages: int) -> Iterator[list[Any]]:
        """Documents of `passages` passages in all, rounded up to whole documents, a block at a time."""
        wanted = -(-passages // PASSAGES_A_DOCUMENT)
        for start in range(0, wanted, BLOCK_DOCUMENTS):
            yield self._block(start, min(BLOCK_DOCUMENTS, wanted - start))

    def questions(self, count: int) -> list[Question]:
        """Of topics that documents are of, but about documents that are not there, in words of a passage."""
        random = np.random.default_rng((SEED, 1))
        factors = self._documents(random, count) + QUESTION_STEP * random.standard_normal((count, FACTORS))
        words = self._words(random, (count, QUESTION_WORDS))
        return [
            Question(vector, " ".join(line)) for vector, line in zip(self._vectors(factors), words, strict=True)
        ]

    def _block(self, start: int, count: int) -> list[Any]:
        from index_bench.ours import document

        random = np.random.default_rng((SEED, 2, start))
        # Whole blocks are drawn: a corpus that ends amid one has the same documents up to there.
        factors = np.repeat(self._documents(random, BLOCK_DOCUMENTS), PASSAGES_A_DOCUMENT, axis=0)
        factors += WEIGHTS[2] * random.standard_normal(factors.shape)
        vectors = self._vectors(factors).reshape(BLOCK_DOCUMENTS, PASSAGES_A_DOCUMENT, self.dimension)
        words = self._words(random, (BLOCK_DOCUMENTS, PASSAGES_A_DOCUMENT, WORDS_A_PASSAGE))
        return [
            document(
                f"document-{start + at}",
                [" ".join(passage).capitalize() + "." for passage in words[at]],
                vectors[at],
                {"bucket": (start + at) % BUCKETS},
            )
            for at in range(count)
        ]

    def _documents(self, random: np.random.Generator, count: int) -> np.ndarray:
        """float [count, FACTORS]: where documents lie, without their passages' own parts."""
        topics = self._topics[random.integers(TOPICS, size=count)]
        return WEIGHTS[0] * topics + WEIGHTS[1] * random.standard_normal((count, FACTORS))

    def _vectors(self, factors: np.ndarray) -> np.ndarray:
        """float32 [n, dimension], rows of length 1."""
        vectors = factors.astype(np.float32) @ self._directions
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _words(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        ranks = np.searchsorted(self._cumulated, random.random(shape))
        return self._vocabulary[np.minimum(ranks, VOCABULARY - 1)]

    @cached_property
    def _topics(self) -> np.ndarray:
        return np.random.default_rng((SEED, 3)).standard_normal((TOPICS, FACTORS))

    @cached_property
    def _directions(self) -> np.ndarray:
        """float32 [FACTORS, dimension]: the weight falls with the square root of the rank."""
        directions = np.random.default_rng((SEED, 4)).standard_normal((FACTORS, self.dimension))
        return (directions / np.sqrt(np.arange(1, FACTORS + 1))[:, None]).astype(np.float32)

    @cached_property
    def _cumulated(self) -> np.ndarray:
        weights = 1 / (np.arange(1, VOCABULARY + 1) + ZIPF_OFFSET)
        return np.cumsum(weights) / weights.sum()

    @cached_property
    def _vocabulary(self) -> np.ndarray:
        common = STOPWORDS.split()
        return np.array([*common, *(_made_word(number) for number in range(VOCABULARY - len(common)))])


def _made_word(number: int) -> str:
    """Two syllables or more, the commoner the fewer: no two numbers make the same word."""
    syllables = len(CONSONANTS) * len(VOWELS)
    length = 2
    while number >= syllables**length:
        number -= syllables**length
        length += 1
    word = ""
    for _ in range(length):
        number, syllable = divmod(number, syllables)
        word += CONSONANTS[syllable // len(VOWELS)] + VOWELS[syllable % len(VOWELS)]
    return word + "n"  # no ending that a stemmer takes off
