"""BM25 over the words of a collection, among the documents that a search may return and no others.

SQLite's full-text index tells which passages hold a word and how often. How rare a word is and how long a passage
is counted here, among the passages allowed alone: documents out of sight change neither results nor their order.
FTS5's own bm25() counts all rows, and takes longer (docs/retrieval.md).

Text is never read as a query of FTS5's: its own tokenizer makes words of it, and these are looked up one by one.
"""

import sqlite3
import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from index.collection.catalog import Mask
from index.collection.database import Database, to_json
from index.collection.documents import Ids
from index.collection.lengths import Integers, Lengths
from index.collection.scope import Candidate
from index.collection.stopwords import STOPWORDS

# Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework", section 3.5.2; also FTS5's own.
K1 = 1.2
B = 0.75

# Encoders read no more than a few hundred words of a question either.
MOST_WORDS = 64
# A search reads so many occurrences and leaves out the commonest words beyond: the one thing that documents out of
# sight can decide on. An average question's are 30,000 on 70,000 passages of MedQuAD.
MOST_OCCURRENCES = 1_000_000

Floats = NDArray[np.float64]


class Words:
    """Its methods may be called from several threads."""

    def __init__(self, database: Database):
        self._database = database
        self._lengths = Lengths(database)
        self._lock = threading.Lock()
        self._tokenizer: Tokenizer | None = None

    def best(self, text: str, k: int, allowed: Mask | None) -> list[Candidate]:
        """The k passages of allowed documents (None: all) that match the words of a text best, with their BM25.

        Passages that hold none of the words are not among them. Equal scores are in the order of the passages.
        After them come those that held a word and were gone a moment later: what took their place may hold it too
        and was not looked at, so that whoever finds them in no database should ask again.
        """
        words, passages = self._occurrences(self._words_of(text))
        with self._lock:
            self._lengths.refresh()  # after the occurrences: every passage that they name is known
            there, lengths = self._lengths.of(passages, allowed)
            gone = self._lengths.gone(passages)
            count, mean = self._lengths.in_scope(allowed)
        words, passages = words[there], passages[there]
        best = _best(*_scores(words, passages, lengths / mean, count), k) if len(passages) else []
        return [*best, *(Candidate(one, best[-1].score if best else 1.0) for one in gone.tolist())]

    def forget(self, documents: Iterable[int]) -> None:
        """These numbers are no documents any more."""
        with self._lock:
            self._lengths.forget(documents)

    def _words_of(self, text: str) -> list[str]:
        """Those to look for, each once: no stop words if there are others."""
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = Tokenizer(self._database)
            return self._tokenizer.telling_words(text)[:MOST_WORDS]

    def _occurrences(self, words: list[str]) -> tuple[Integers, Ids]:
        """For each occurrence of each word: which word, and the passage's id. Sorted by both."""
        rows = self._database.read(
            """SELECT (SELECT group_concat(doc) FROM word_occurrences WHERE term = value) AS passages
            FROM json_each(:words)""",
            words=to_json(self._affordable(words)),
        )
        found = [np.fromstring(row["passages"] or "0", np.int64, sep=",") for row in rows]
        numbers = np.repeat(np.arange(len(found)), np.array([len(one) for one in found], np.int64))
        return numbers, np.concatenate([np.empty(0, np.int64), *found])

    def _affordable(self, words: list[str]) -> list[str]:
        """The rarest words: as many as may be read. One always."""
        rows = self._database.read(
            """SELECT value AS word, cnt AS occurrences FROM json_each(:words) JOIN word_counts ON term = value
            ORDER BY occurrences""",
            words=to_json(words),
        )
        total = np.cumsum([row["occurrences"] for row in rows])
        return [row["word"] for at, row in enumerate(rows) if at == 0 or total[at] <= MOST_OCCURRENCES]


class Tokenizer:
    """Makes of a text the words that the index holds of it: by the index's own tokenizer, in a table in memory."""

    def __init__(self, database: Database):
        table = database.read("SELECT sql FROM sqlite_master WHERE name = 'words'")[0]["sql"]
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.execute(table)
        self._connection.execute("CREATE VIRTUAL TABLE found USING fts5vocab (words, instance)")
        self._stopwords = set(self.words(STOPWORDS))

    def telling_words(self, text: str) -> list[str]:
        words = self.words(text)
        return [word for word in words if word not in self._stopwords] or words

    def words(self, text: str) -> list[str]:
        """Each once, in the order of the text."""
        self._connection.execute("INSERT INTO words (words) VALUES ('delete-all')")
        self._connection.execute("INSERT INTO words (rowid, text) VALUES (1, ?)", (_readable(text),))
        rows = self._connection.execute('SELECT term FROM found ORDER BY "offset"')
        return list(dict.fromkeys(row[0] for row in rows))


def _scores(words: Integers, passages: Ids, relative_lengths: Floats, count: int) -> tuple[Ids, Floats]:
    """BM25 of the passages: ids, and the score of each.

    words, passages, relative_lengths (1: the mean): of each occurrence. `count`: passages in all.
    Source: Robertson and Zaragoza 2009, equation 3.15, with the logarithm of 1 + odds as in Lucene: never negative.
    """
    first = np.flatnonzero(np.r_[True, (words[1:] != words[:-1]) | (passages[1:] != passages[:-1])])
    times = np.diff(np.r_[first, len(words)])
    words, passages, relative_lengths = words[first], passages[first], relative_lengths[first]
    holding = np.bincount(words)
    rarity = np.log1p((count - holding + 0.5) / (holding + 0.5))
    weights = times * (K1 + 1) / (times + K1 * (1 - B + B * relative_lengths))
    ids, at = np.unique(passages, return_inverse=True)
    return ids, np.bincount(at, rarity[words] * weights).astype(np.float64)


def _best(ids: Ids, scores: Floats, k: int) -> list[Candidate]:
    if len(ids) > k:
        bound = np.partition(scores, -k)[-k]
        chosen = scores >= bound
        ids, scores = ids[chosen], scores[chosen]
    order = np.lexsort((ids, -scores))[:k]
    return [Candidate(int(ids[at]), float(scores[at])) for at in order]


def _readable(text: str) -> str:
    """Without what SQLite cannot take: half a surrogate pair, or what ends a string."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")
