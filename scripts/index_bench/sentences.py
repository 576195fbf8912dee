"""Real sentences as vectors: what the benchmark's data are grown from.

A document is split after each full stop, question or exclamation mark that white space follows, at each line's
end and at list dashes before a capital. Kept are sentences of 30 to 400 characters, each once (case and spacing
aside), in the order of the documents: 100,984 of medquad. They are encoded with all-MiniLM-L6-v2 by plain
sentence-transformers in fp32, whatever the product's encoder does, so that the data stay the same; in blocks
that are kept: a run that was cut off goes on.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ENDS = re.compile(r"(?<=[.!?])\s+|\n+| - (?=[A-Z])")
SHORTEST, LONGEST = 30, 400  # characters: headings say too little, longer ones are tables run together
BLOCK = 5000
TUNING_QUESTIONS = 300


@dataclass(frozen=True)
class Sentences:
    """vectors: float32 [sentences, 384], rows of length 1. documents: int32 [sentences], each one's document."""

    texts: list[str]
    documents: np.ndarray
    vectors: np.ndarray
    tuning: np.ndarray  # float32 [300, 384], training questions: search effort is chosen on these
    questions: np.ndarray  # float32 [questions, 384], test questions: figures are measured on these


def load(source: Path, work: Path, most: int | None = None) -> Sentences:
    """source: a folder with documents.jsonl and questions.{train,test}.jsonl. most: only so many sentences."""
    pairs = list(split(source / "documents.jsonl"))[:most]
    texts = [text for _, text in pairs]
    documents = np.array([document for document, _ in pairs], np.int32)
    folder = work / "embeddings"
    folder.mkdir(parents=True, exist_ok=True)
    encoder = _Encoder()
    starts = range(0, len(texts), BLOCK)
    blocks = [
        _kept(
            folder / f"sentences-{start}-{len(texts[start : start + BLOCK])}.npy",
            texts[start : start + BLOCK],
            encoder,
        )
        for start in starts
    ]
    rng = np.random.default_rng(0)
    train = _questions(source / "questions.train.jsonl")
    chosen = sorted(rng.choice(len(train), min(TUNING_QUESTIONS, len(train)), replace=False))
    tuning = _kept(folder / "tuning.npy", [train[at] for at in chosen], encoder)
    test = _questions(source / "questions.test.jsonl")
    questions = _kept(folder / "questions.npy", test, encoder)
    return Sentences(texts, documents, np.concatenate(blocks), tuning, questions)


def split(path: Path) -> Iterator[tuple[int, str]]:
    """Each distinct sentence with its document's number."""
    seen = set()
    for number, line in enumerate(path.read_text().splitlines()):
        for piece in ENDS.split(json.loads(line)["text"]):
            text = " ".join(piece.split())
            if SHORTEST <= len(text) <= LONGEST and text.casefold() not in seen:
                seen.add(text.casefold())
                yield number, text


def _questions(path: Path) -> list[str]:
    """Each distinct question once."""
    return list(dict.fromkeys(json.loads(line)["question"] for line in path.read_text().splitlines()))


def _kept(path: Path, texts: list[str], encoder: "_Encoder") -> np.ndarray:
    if not path.exists():
        vectors = encoder.encode(texts)
        print(f"encoded {path.name}", flush=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, vectors)
        partial.rename(path)
    return np.load(path)


class _Encoder:
    """Loaded when first needed: with every block there already, no model is."""

    def __init__(self) -> None:
        self._loaded: Any = None

    def encode(self, texts: list[str]) -> np.ndarray:
        if self._loaded is None:
            from sentence_transformers import SentenceTransformer

            from local_llm.embedded import ENCODER, locate

            self._loaded = SentenceTransformer(str(locate(ENCODER)), device="cpu", local_files_only=True)
        vectors = self._loaded.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, np.float32)
