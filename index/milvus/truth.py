"""What Milvus has to hold: the passages of a generation as the collection's database has them.

Each passage carries a stamp of its document's version. An id alone is not enough: after a database was put back
from a backup, ids that Milvus has are given again, to other passages.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from index.collection.database import Database
from index.collection.live_view import Numbers, vectors_after
from index.vectors.rows import Ids, Vectors

_STAMPED = "number, id, version, sha256, splitting, created_at, first_passage"


@dataclass(frozen=True)
class Stamped:
    """ids: int64 [n], ascending; stamps: int64 [n], of the version of the document that each is of."""

    ids: Ids
    stamps: Ids


@dataclass(frozen=True)
class Block:
    """Passages with all that Milvus is told of them. vectors: float32 [n, dimension]."""

    ids: Ids
    stamps: Ids
    documents: Numbers
    vectors: Vectors


class Truth:
    def __init__(self, database: Database, generation: int, dimension: int):
        self._database = database
        self._generation = generation
        self.dimension = dimension

    def passages(self) -> Stamped:
        """All there are, by the last commit."""
        rows = list(self._database.iterate(f"SELECT passages, {_STAMPED} FROM documents ORDER BY first_passage"))
        if not rows:
            return Stamped(np.empty(0, np.int64), np.empty(0, np.int64))
        counts = np.array([row[0] for row in rows], np.int64)
        first = np.array([row[-1] for row in rows], np.int64)
        starts = np.repeat(first - np.cumsum(counts) + counts, counts)
        stamps = np.array([_stamp(row[1:]) for row in rows], np.int64)
        return Stamped(starts + np.arange(counts.sum()), np.repeat(stamps, counts))

    def stamps_of(self, documents: Numbers) -> Ids:
        """int64 [n], of these documents as they are now; 0 for one that is gone."""
        rows = self._database.iterate(
            f"SELECT {_STAMPED} FROM documents WHERE number IN (SELECT value FROM json_each(:numbers))",
            numbers=json.dumps(np.unique(documents).tolist()),
        )
        stamps = {row[0]: _stamp(row) for row in rows}
        return np.array([stamps.get(number, 0) for number in documents.tolist()], np.int64)

    def blocks(self, wanted: Stamped) -> Iterator[Block]:
        """Those of the wanted passages that have a vector in this generation and are there still."""
        if not len(wanted.ids):
            return
        found = vectors_after(self._database, self._generation, int(wanted.ids[0]) - 1, self.dimension)
        for ids, documents, vectors in found:
            chosen = np.isin(ids, wanted.ids, assume_unique=True)
            stamps = wanted.stamps[np.searchsorted(wanted.ids, ids[chosen])]
            yield Block(ids[chosen], stamps, documents[chosen], vectors[chosen])


def _stamp(row: tuple[Any, ...]) -> int:
    """0 to 2^63 - 1, as int64 holds it."""
    digest = blake2b(repr(row).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
