"""The folder that a bulk encoding fills: vectors of texts, found by the texts' hashes.

    encoding.json                 which encoder, and how passages were cut
    parts/<key>/texts.npy         uint8 [passages, 32]: SHA-256 of what was encoded
    parts/<key>/vectors.npy       float32 [passages, dimension], rows of length 1
    parts/<key>/report.json       what became of the part's files
    parts/.tried-<key>            a byte for each time that a part was begun in this run and not ended
    lock                          held by the run that fills it

A part is there whole or not at all. Whoever takes a vector compares the whole hash of a text with that of the row.
"""

import errno
import hashlib
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.bulk.plan import Part, PartReport, Plan, report_from_json, report_to_json
from index.collection.storage_errors import of_disk
from index.encoding.encoder import Vectors
from local_llm.errors import ConflictError, IntegrityError, InvalidInputError, LocalLLMError
from local_llm.fileio import read_json, remove_staging, staged_directory, write_json
from local_llm.locks import exclusive_lock

ENCODING, PARTS, LOCK, TRIED = "encoding.json", "parts", "lock", ".tried-"
HASH_BYTES = 32
# Parts whose files are open: a corpus that is added in its order needs one at a time.
MOST_OPEN = 16
# A worker may die once of what others did on its host, or be lost with it; hardly three times with one part.
MOST_TRIES = 3


@contextmanager
def filling(into: Path, plan: Plan) -> Iterator[None]:
    """For the block this run alone fills the folder. Parts are for its owner alone to read, whatever folder it is:
    vectors tell what their texts were about. Workers, on whatever host, ask for no lock.

    Raises: LockedError while another run fills it; ConflictError if it holds an encoding by another plan; as
        Worker.encode for the disk.
    """
    with ExitStack() as held:
        with _told_clearly(into):
            into.mkdir(mode=0o700, parents=True, exist_ok=True)
            held.enter_context(exclusive_lock(into / LOCK, f"the encoding into {into}"))
            _prepare(into, plan)
        yield


def _prepare(into: Path, plan: Plan) -> None:
    (into / PARTS).mkdir(mode=0o700, exist_ok=True)
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
    for tried in (into / PARTS).glob(f"{TRIED}*"):
        tried.unlink(missing_ok=True)


def begin_part(into: Path, part: Part) -> None:
    """Counts the tries of a part that may end its worker: whoever starts workers anew would do so without end.

    Raises: LocalLLMError when it was begun MOST_TRIES times and never ended; as Worker.encode for the disk.
    """
    with _told_clearly(into), (into / PARTS / f"{TRIED}{part.key}").open("ab") as tries:
        if tries.tell() >= MOST_TRIES:
            first, last = part.sources[0].path, part.sources[-1].path
            raise LocalLLMError(
                f"the part from {first} to {last} ended its worker {MOST_TRIES} times",
                hint="see with dmesg and ray status whether hosts run out of memory or are lost; run fewer workers "
                "at once (--workers), or find the file by encoding these alone, and encode the corpus without it",
            )
        tries.write(b".")


def publish_part(into: Path, key: str, texts: Sequence[str], vectors: Vectors, report: PartReport) -> None:
    """Takes the place of one that lacks files. Raises: as Worker.encode for the disk."""
    target = into / PARTS / key
    with _told_clearly(into):
        if finished(into, key) is None:
            shutil.rmtree(target, ignore_errors=True)
        with _unless_there(), staged_directory(target) as folder:
            np.save(folder / "texts.npy", _hashes(texts))
            np.save(folder / "vectors.npy", vectors)
            (folder / "report.json").write_text(report_to_json(report))
        (into / PARTS / f"{TRIED}{key}").unlink(missing_ok=True)


def finished(into: Path, key: str) -> PartReport | None:
    """None: it is still to do, or to do again as files of it could not be read then."""
    path = into / PARTS / key / "report.json"
    report = report_from_json(path.read_text()) if path.exists() else None
    return None if report is None or report.unreadable else report


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
                hint=f"local-llm index encode PATHS --into ANOTHER_FOLDER --encoder {name}, on a host of "
                "the kind that made the collection (precision is bfloat16 with a GPU, int8 without), or with "
                'index.precision = "float32" for both',
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


@contextmanager
def _unless_there() -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:  # another worker's came between the look and the renaming
            raise


@contextmanager
def _told_clearly(into: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise of_disk(error, into) from error


def _hashes(texts: Sequence[str]) -> NDArray[np.uint8]:
    """uint8 [texts, 32]."""
    whole = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
    return np.frombuffer(whole, np.uint8).reshape(-1, HASH_BYTES)


def _first_words(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(hashes[:, :8]).view(np.uint64).reshape(-1)
