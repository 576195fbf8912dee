"""Vectors for whoever wants them without a collection."""

from collections.abc import Sequence

import numpy as np

from index.encoding.encoder import BATCH, Encoder, Vectors
from index.interface import Embeddings
from local_llm.errors import InvalidInputError

Inputs = Sequence[str] | Sequence[Sequence[int]]


def embed(encoder: Encoder, model: str, inputs: Inputs, kind: str) -> Embeddings:
    """Raises: InvalidInputError for an empty input, or token ids of another tokenizer."""
    texts = [one if isinstance(one, str) else encoder.text_of_token_ids(one) for one in inputs]
    for at, text in enumerate(texts):
        if not text.strip():
            raise InvalidInputError(f"input[{at}] is empty", param="input")
    tokens = [encoder.count_tokens(text) for text in texts]
    most = encoder.max_tokens
    return Embeddings(
        model=model,
        vectors=_encoded(encoder, texts, tokens, kind).tolist(),
        tokens=sum(min(count, most) for count in tokens),
        truncated=sum(count > most for count in tokens),
    )


def _encoded(encoder: Encoder, texts: Sequence[str], tokens: Sequence[int], kind: str) -> Vectors:
    """float32 [texts, dimension]. In batches of like length, between which searches have their turn."""
    encode = encoder.encode_queries if kind == "query" else encoder.encode_documents
    vectors = np.empty((len(texts), encoder.dimension), np.float32)
    order = sorted(range(len(texts)), key=tokens.__getitem__)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        vectors[rows] = encode([texts[row] for row in rows])
    return vectors
