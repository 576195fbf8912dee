"""Texts and token ids of one encoder, by its own fast tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from local_llm.errors import InvalidInputError

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Tokenized:
    """`ids` of each text as the model reads them, special ones included; `cut` says which lost their end."""

    ids: list[list[int]]
    cut: list[bool]


class TextTokenizer:
    """`definition` is a tokenizer.json; texts are cut to `max_tokens`, special ones included."""

    def __init__(self, definition: str, max_tokens: int):
        from tokenizers import Tokenizer

        self.max_tokens = max_tokens
        self._whole: Any = Tokenizer.from_str(definition)
        self._whole.no_truncation()
        self._whole.no_padding()
        self._cutting: Any = Tokenizer.from_str(definition)
        self._cutting.no_padding()
        self._cutting.enable_truncation(max_tokens)

    @property
    def special_tokens(self) -> int:
        """Tokens put around each text."""
        return int(self._whole.num_special_tokens_to_add(False))

    @property
    def vocabulary_size(self) -> int:
        return int(self._whole.get_vocab_size())

    def read(self, texts: Sequence[str]) -> Tokenized:
        encodings = self._cutting.encode_batch_fast(list(texts))
        return Tokenized([encoding.ids for encoding in encodings], [bool(one.overflowing) for one in encodings])

    def ends(self, text: str) -> list[int]:
        """For each token of the text, special ones not included, the character where it ends."""
        return [end for _, end in self._whole.encode(text, add_special_tokens=False).offsets]

    def ids(self, text: str) -> list[int]:
        """Special tokens not included, nothing cut."""
        return list(self._whole.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Special tokens left out."""
        return str(self._whole.decode(list(ids), skip_special_tokens=True))

    def text_of(self, ids: Sequence[int]) -> str:
        """The text that these ids of ours stand for, with or without special tokens around it.

        Raises: InvalidInputError unless the text gives the same ids again: they are then of another tokenizer.
        """
        if ids and min(ids) >= 0 and max(ids) < self.vocabulary_size:
            text = self.decode(ids)
            if list(ids) in (self.ids(text), list(self._whole.encode(text).ids)):
                return text
        raise InvalidInputError("token ids of another tokenizer; send strings", param="input")


def padded(ids: Sequence[Sequence[int]], pad_id: int) -> tuple[Ids, Ids]:
    """Returns: token ids and mask, int64 [texts, longest], padded on the right."""
    shape = (len(ids), max(map(len, ids)))
    tokens, mask = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    for row, one in enumerate(ids):
        tokens[row, : len(one)] = one
        mask[row, : len(one)] = 1
    return tokens, mask
