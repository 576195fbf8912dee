"""The folder that a bulk encoding fills: vectors of texts, found by the texts' hashes.

    encoding.json                 which encoder, and how passages were cut
    parts/<key>/texts.npy         uint8 [passages, 32]: SHA-256 of what was encoded
    parts/<key>/vectors.npy       float32 [passages, dimension], rows of length 1
    parts/<key>/report.json       what became of the part's files

A part is there whole or not at all. Whoever takes a vector compares the whole hash of a text with that of the row.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.bulk.plan import PartReport, Plan, report_from_json, report_to_json
from index.encoding.encoder import Vectors
from local_llm.errors import ConflictError, IntegrityError, InvalidInputError
from local_llm.fileio import read_json, remove_staging, staged_directory, write_json

ENCODING, PARTS = "encoding.json", "parts"
HASH_BYTES = 32
# Parts whose files are open: a corpus that is added in its order needs one at a time.
MOST_OPEN = 16


def prepare(into: Path, plan: Plan) -> None:
    """Makes the folder, readable for its owner alone: vectors tell what their texts were about.

    Raises: ConflictError if it holds an encoding by another plan.
    """
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    (into / PARTS).mkdir(exist_ok=True)
    if not (into / ENCODING).exists():
        write_json(into / ENCODING, plan.identity)
    found = read_json(into / ENCODING)
    if found != plan.identity:
        raise ConflictError(
            f"{into} holds an encoding by {found['encoder']['name']} in passages of {found['chunk_tokens']} "
            "tokens, which differs from what is asked for",
            hint="name another folder",
        )
    remove_staging(into / PARTS)


def publish_part(into: Path, key: str, texts: Sequence[str], vectors: Vectors, report: PartReport) -> None:
    try:
        with staged_directory(into / PARTS / key) as folder:
            np.save(folder / "texts.npy", _hashes(texts))
            np.save(folder / "vectors.npy", vectors)
            (folder / "report.json").write_text(report_to_json(report))
    except FileExistsError:
        pass


def finished(into: Path, key: str) -> PartReport | None:
    """None: it is still to do."""
    path = into / PARTS / key / "report.json"
    return report_from_json(path.read_text()) if path.exists() else None


@dataclass(frozen=True)
class _Part:
    texts: NDArray[np.uint8]
    vectors: Vectors


class EncodedTexts:
    """Vectors of a folder, for one thread. Takes 16 bytes of memory a passage: the vectors stay on the disk.

    Raises: InvalidInputError if it is no such folder; ConflictError if it is of another encoder.
    """

    def __init__(self, folder: Path, name: str, fingerprint: str):
        try:
            found: dict[str, Any] = read_json(folder / ENCODING)["encoder"]
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInputError(
                f"{folder} holds no encoding: {error}",
                hint=f"local-llm index encode PATHS --into {folder}",
                param="encoded",
            ) from None
        if found["fingerprint"] != fingerprint:
            raise ConflictError(
                f"{folder} was encoded by {found['name']}, and the collection needs {name}: weights, pooling, "
                "prompts or precision differ",
                hint=f"local-llm index encode PATHS --into ANOTHER_FOLDER --encoder {name}",
            )
        self._folders = sorted(path for path in (folder / PARTS).iterdir() if not path.name.startswith("."))
        self._open: OrderedDict[int, _Part] = OrderedDict()
        self._keys, self._places = self._index()

    def find(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """Those of the texts that are there, each with its vector: float32 [dimension].

        Raises: IntegrityError.
        """
        hashes = _hashes(texts)
        firsts = _first_words(hashes)
        found: dict[str, Vectors] = {}
        for text, whole, at in zip(texts, hashes, np.searchsorted(self._keys, firsts), strict=True):
            vector = self._vector(whole, int(at), _first_words(whole[None])[0])
            if vector is not None:
                found[text] = vector
        return found

    def _vector(self, whole: NDArray[np.uint8], at: int, first: np.uint64) -> Vectors | None:
        while at < len(self._keys) and self._keys[at] == first:
            number, row = divmod(int(self._places[at]), 1 << 32)
            part = self._part(number)
            if np.array_equal(part.texts[row], whole):
                return np.array(part.vectors[row], np.float32)
            at += 1
        return None

    def _index(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """First words of all hashes, sorted, and of each its part and its row there (32 bits each)."""
        words, places = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for number in range(len(self._folders)):
            texts = self._part(number).texts
            words.append(_first_words(np.asarray(texts)))
            places.append((number << 32) + np.arange(len(texts), dtype=np.int64))
        keys = np.concatenate(words)
        order = np.argsort(keys, kind="stable")
        return keys[order], np.concatenate(places)[order]

    def _part(self, number: int) -> _Part:
        if number not in self._open:
            self._open[number] = _opened(self._folders[number])
            if len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]


def _opened(folder: Path) -> _Part:
    try:
        texts = np.load(folder / "texts.npy", mmap_mode="r", allow_pickle=False)
        vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"{folder} cannot be read: {error}", hint=f"delete {folder} and encode again"
        ) from None
    if texts.dtype != np.uint8 or texts.shape != (len(vectors), HASH_BYTES) or vectors.dtype != np.float32:
        raise IntegrityError(
            f"{folder} holds other arrays than it should", hint=f"delete {folder} and encode again"
        )
    return _Part(texts, vectors)


def _hashes(texts: Sequence[str]) -> NDArray[np.uint8]:
    """uint8 [texts, 32]."""
    whole = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
    return np.frombuffer(whole, np.uint8).reshape(-1, HASH_BYTES)


def _first_words(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(hashes[:, :8]).view(np.uint64).reshape(-1)
