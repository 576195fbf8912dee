"""Which passages are trained for a question: the right ones, and wrong ones that are hard to tell from them."""

import contextlib
import io
import random
from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from local_llm.questions import Question
from training.reporting import Report
from training.retriever.data import Passage
from training.retriever.encoding import Vectors
from training.retriever.settings import FIRST_RANK, LAST_RANK, RetrieverSettings

# Questions mined at a time: the miner writes down all their candidates.
CHUNK = 1000
BLOCK_SCORES = 1 << 26


@dataclass(frozen=True)
class Pair:
    """Numbers of a question and of passages. `label` is for the cosine loss: 1.0 right, 0.0 wrong."""

    question: int
    positive: int
    negatives: tuple[int, ...] = ()
    label: float = 1.0


@dataclass(frozen=True)
class Mined:
    """`capped`: questions with more right documents than are trained. `filled`: wrong passages drawn by chance, as
    too few candidates were below the margin."""

    pairs: tuple[Pair, ...]
    capped: int
    filled: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def mined_from_json(values: dict[str, Any]) -> Mined:
    pairs = (Pair(**{**one, "negatives": tuple(one["negatives"])}) for one in values["pairs"])
    return Mined(tuple(pairs), values["capped"], values["filled"])


class Gold:
    """What is right for each question, by text: a passage that reads like one of a right document is right too."""

    def __init__(self, passages: Sequence[Passage]):
        first: dict[str, int] = {}
        self.text_of = [first.setdefault(one.text, number) for number, one in enumerate(passages)]
        self.texts = sorted(first.values())
        self._of_document: dict[str, list[int]] = defaultdict(list)
        for number, one in enumerate(passages):
            self._of_document[one.document].append(number)

    def passages(self, document: str) -> list[int]:
        return self._of_document[document]

    def of(self, question: Question) -> frozenset[int]:
        """Numbers of texts, each that of the first passage with it."""
        numbers = (number for document in question.documents for number in self.passages(document))
        return frozenset(self.text_of[number] for number in numbers)


@dataclass(frozen=True)
class Miner:
    """vectors: float32 [passages, dimension], queries: float32 [questions, dimension], of the untrained encoder."""

    passages: Sequence[Passage]
    questions: Sequence[Question]
    vectors: Vectors
    queries: Vectors
    settings: RetrieverSettings

    def mine(self, train: Sequence[int], report: Report | None = None) -> Mined:
        """Pairs for the questions of these numbers."""
        gold = Gold(self.passages)
        positives = {number: self._positives(number, gold) for number in train}
        most = self.settings.positives
        capped = sum(len(self.questions[number].documents) > most for number in train)
        if self.settings.loss == "cosine":
            return Mined(tuple(self._labelled(positives, gold)), capped, 0)
        if not self.settings.negatives:
            return Mined(tuple(_pairs(positives, {})), capped, 0)
        negatives, filled = self._negatives(positives, gold, report)
        return Mined(tuple(_pairs(positives, negatives)), capped, filled)

    def _positives(self, number: int, gold: Gold) -> list[int]:
        """The best passage of each right document, of the best documents."""
        best: dict[int, tuple[float, int]] = {}
        for document in sorted(self.questions[number].documents):
            of_document = gold.passages(document)
            scores = self.vectors[of_document] @ self.queries[number]
            at = int(scores.argmax())
            best.setdefault(gold.text_of[of_document[at]], (-float(scores[at]), of_document[at]))
        return [passage for _, passage in sorted(best.values())[: self.settings.positives]]

    def _negatives(
        self, positives: dict[int, list[int]], gold: Gold, report: Report | None
    ) -> tuple[dict[int, tuple[int, ...]], int]:
        found: dict[int, tuple[int, ...]] = {}
        filled, numbers = 0, list(positives)
        for start in range(0, len(numbers), CHUNK):
            chunk = numbers[start : start + CHUNK]
            candidates = self._candidates({number: positives[number] for number in chunk}, gold)
            for number in chunk:
                right = gold.of(self.questions[number])
                draw = random.Random(f"{self.settings.seed} {number}")
                left = [one for one in candidates.get(number, ()) if one not in right]
                chosen = draw.sample(left, min(len(left), self.settings.negatives))
                while len(chosen) < self.settings.negatives and len(right) + len(chosen) < len(gold.texts):
                    chosen.append(_drawn(draw, gold.texts, right.union(chosen)))
                    filled += 1
                found[number] = tuple(chosen)
            if report is not None:
                report(min(start + CHUNK, len(numbers)), len(numbers), "")
        return found, filled

    def _candidates(self, positives: dict[int, list[int]], gold: Gold) -> dict[int, list[int]]:
        """For each question the texts of the ranks looked at that are below the margin, by the library's miner.

        It is told of the trained positives only, as the least of their scores counts for the margin: other right
        passages are still among its candidates.
        """
        from datasets import Dataset
        from sentence_transformers.util import mine_hard_negatives

        rows = [(str(number), str(gold.text_of[one])) for number, right in positives.items() for one in right]
        skipped = FIRST_RANK - 1
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars cannot be switched off
            mined = mine_hard_negatives(
                Dataset.from_dict({"question": [row[0] for row in rows], "passage": [row[1] for row in rows]}),
                _known_vectors(self.vectors, self.queries),
                corpus=[str(text) for text in gold.texts],
                range_min=skipped,
                range_max=LAST_RANK,
                relative_margin=self.settings.margin,
                num_negatives=LAST_RANK - skipped,
                sampling_strategy="top",
                output_format="labeled-list",
                faiss_batch_size=max(1, BLOCK_SCORES // len(gold.texts)),
                verbose=False,
            )
        lists = zip(mined["question"], mined["passage"], strict=True)
        return {int(question): [int(one) for one in found[1:]] for question, found in lists}

    def _labelled(self, positives: dict[int, list[int]], gold: Gold) -> list[Pair]:
        """The article's rows: for each right passage one that is wrong, by chance."""
        pairs = []
        for number, right in positives.items():
            draw, all_right = random.Random(f"{self.settings.seed} {number}"), gold.of(self.questions[number])
            for passage in right:
                pairs.append(Pair(number, passage))
                if len(all_right) < len(gold.texts):
                    pairs.append(Pair(number, _drawn(draw, gold.texts, all_right), label=0.0))
        return pairs


def _pairs(positives: dict[int, list[int]], negatives: dict[int, tuple[int, ...]]) -> list[Pair]:
    return [Pair(number, one, negatives.get(number, ())) for number, right in positives.items() for one in right]


def _drawn(draw: random.Random, texts: Sequence[int], but: AbstractSet[int]) -> int:
    while (chosen := draw.choice(texts)) in but:
        pass
    return chosen


def _known_vectors(vectors: Vectors, queries: Vectors) -> Any:
    """Stands for the encoder with the miner: all texts were encoded before, and are named by their numbers."""
    import torch
    from sentence_transformers.util import cos_sim, pairwise_cos_sim

    class KnownVectors:
        device = torch.device("cpu")
        similarity = staticmethod(cos_sim)
        similarity_pairwise = staticmethod(pairwise_cos_sim)

        def encode_document(self, keys: list[str], **_: Any) -> np.ndarray:
            return vectors[[int(key) for key in keys]]

        def encode_query(self, keys: list[str], **_: Any) -> np.ndarray:
            return queries[[int(key) for key in keys]]

    return KnownVectors()
