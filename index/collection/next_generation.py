"""A generation in the making: all passages as another encoder sees them, beside the ones that searches use.

Documents come and go meanwhile: what is written here goes with its document, and what comes later is lacking until
it is encoded too. A run that was cut off goes on where it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.collection import documents as rows
from index.collection.database import Database, add_generation
from index.collection.documents import Vectors


@dataclass(frozen=True)
class Lacking:
    """A document that this generation lacks, and what is to be encoded of it, in order."""

    number: int
    first_passage: int
    texts: list[str]


class NextGeneration:
    def __init__(self, database: Database, encoder: str, fingerprint: str):
        """The unfinished generation of this encoder, or a new one. Unfinished ones of others are given up."""
        self._database = database
        with database.transaction() as connection:
            begun = database.read("SELECT number, fingerprint FROM generations WHERE NOT active")
            self.number = 0
            for row in begun:
                if row["fingerprint"] == fingerprint:
                    self.number = row["number"]
                else:
                    connection.execute(f"DROP TABLE vectors_{row['number']}")
                    connection.execute("DELETE FROM generations WHERE number = ?", (row["number"],))
            if not self.number:
                self.number = add_generation(connection, encoder, fingerprint, None, active=False)

    def lacking(self, limit: int, *, after: int) -> list[Lacking]:
        """At most `limit` documents with numbers above `after`, in their order."""
        with self._database.one_commit():
            return self._lacking(limit, after)

    def _lacking(self, limit: int, after: int) -> list[Lacking]:
        found = self._database.read(
            f"""SELECT number, first_passage FROM documents LEFT JOIN vectors_{self.number} ON document = number
            WHERE document IS NULL AND number > :after ORDER BY number LIMIT :limit""",
            limit=limit,
            after=after,
        )
        return [
            Lacking(row["number"], row["first_passage"], rows.encoded_passages(self._database, row["number"]))
            for row in found
        ]

    def write(self, documents: Sequence[Lacking], vectors: Sequence[Vectors]) -> None:
        """Those that were replaced or removed meanwhile are passed over."""
        with self._database.transaction() as connection:
            for document, its_vectors in zip(documents, vectors, strict=True):
                same = self._database.read(
                    "SELECT 1 FROM documents WHERE number = :number AND first_passage = :first_passage",
                    number=document.number,
                    first_passage=document.first_passage,
                )
                if same and len(its_vectors) == len(document.texts):
                    rows.write_vectors(connection, self.number, document.number, its_vectors)
            dimensions = {int(one.shape[1]) for one in vectors if np.size(one)}
            connection.executemany(
                "UPDATE generations SET dimension = ? WHERE number = ?", [(one, self.number) for one in dimensions]
            )

    @property
    def dimension(self) -> int | None:
        """None until a vector was written."""
        found = self._database.read("SELECT dimension FROM generations WHERE number = :number", number=self.number)
        return found[0]["dimension"]

    def passages(self) -> int:
        """How many are written."""
        found = self._database.read(
            f"""SELECT coalesce(sum(passages), 0) AS passages FROM documents
            WHERE number IN (SELECT document FROM vectors_{self.number})"""
        )
        return int(found[0]["passages"])
