"""What is trained: right passages, hard wrong ones, and never a right one as a wrong one."""

import numpy as np
import pytest

from local_llm.questions import Question
from training.retriever.batches import Row, plan
from training.retriever.data import Passage
from training.retriever.mining import Miner
from training.retriever.settings import RetrieverSettings

DOCUMENTS, PARTS = 60, 3


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def passages() -> list[Passage]:
    """The last two documents read the same."""
    texts = [f"text {min(number, DOCUMENTS - 2)} {part}" for number in range(DOCUMENTS) for part in range(PARTS)]
    return [Passage(str(at), f"d{at // PARTS}", text) for at, text in enumerate(texts)]


def miner(passages: list[Passage], questions: list[Question], **changes: object) -> Miner:
    draw = np.random.default_rng(5)
    vectors = unit(draw.normal(size=(len(passages), 8)))
    queries = unit(draw.normal(size=(len(questions), 8)))
    return Miner(passages, questions, vectors, queries, RetrieverSettings(**changes))  # type: ignore[arg-type]


def random_questions(count: int = 40) -> list[Question]:
    draw = np.random.default_rng(6)
    sizes = draw.integers(1, 20, count)
    return [
        Question(f"question {at}", frozenset(f"d{one}" for one in draw.choice(DOCUMENTS, size, replace=False)))
        for at, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("loss", ["multiple-negatives", "cosine"])
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_no_right_document_is_ever_a_negative(passages: list[Passage], loss: str, margin: float) -> None:
    """Also not the document that reads like a right one, nor a right one that is not trained."""
    questions = random_questions()
    mined = miner(passages, questions, loss=loss, margin=margin, negatives=6, positives=2).mine(range(40))
    seen = 0
    for pair in mined.pairs:
        gold = questions[pair.question].documents
        texts = {one.text for one in passages if one.document in gold}
        wrong = pair.negatives if pair.label else (pair.positive,)
        assert not {passages[number].text for number in wrong} & texts
        assert (passages[pair.positive].document in gold) == bool(pair.label)
        seen += len(wrong) if loss == "cosine" and not pair.label else len(pair.negatives)
    assert seen >= 40


def test_negatives_are_the_margin_below_the_positive(passages: list[Passage]) -> None:
    questions = [Question("one", frozenset(["d3"]))]
    found = miner(passages, questions, margin=0.3, negatives=5)
    (pair,) = found.mine([0]).pairs
    scores = found.vectors @ found.queries[0]
    assert pair.positive == max(range(9, 12), key=lambda at: scores[at])
    assert all(scores[one] <= scores[pair.positive] - 0.3 * abs(scores[pair.positive]) for one in pair.negatives)
    assert len(set(pair.negatives)) == 5


def test_a_question_with_a_hundred_documents_trains_the_best_few(passages: list[Passage]) -> None:
    questions = [Question("many", frozenset(f"d{one}" for one in range(50)))]
    found = miner(passages, questions, positives=5, negatives=1)
    mined = found.mine([0])
    scores = (found.vectors @ found.queries[0])[: 50 * PARTS].reshape(50, PARTS).max(axis=1)
    best = {f"d{one}" for one in np.argsort(-scores)[:5]}
    assert {passages[pair.positive].document for pair in mined.pairs} == best
    assert mined.capped == 1
    assert all(int(passages[pair.negatives[0]].document[1:]) >= 50 for pair in mined.pairs)


def test_where_all_is_right_nothing_is_wrong(passages: list[Passage]) -> None:
    questions = [Question("all", frozenset(f"d{one}" for one in range(DOCUMENTS)))]
    mined = miner(passages, questions, negatives=2).mine([0])
    assert {pair.negatives for pair in mined.pairs} == {()}
    labelled = miner(passages, questions, loss="cosine").mine([0])
    assert {pair.label for pair in labelled.pairs} == {1.0}


def test_the_articles_rows_are_one_wrong_for_each_right(passages: list[Passage]) -> None:
    mined = miner(passages, random_questions(), loss="cosine").mine(range(40))
    labels = [pair.label for pair in mined.pairs]
    assert labels.count(1.0) == labels.count(0.0)


def test_no_batch_holds_a_right_passage_of_one_question_as_wrong_for_another() -> None:
    draw = np.random.default_rng(2)
    rows = []
    for _ in range(200):
        gold = frozenset(draw.choice(80, draw.integers(1, 6), replace=False).tolist())
        texts = {min(gold), int(draw.integers(80, 120))}
        rows.append(Row(frozenset(texts), gold))
    batches = plan(rows, batch_size=16, epochs=3, seed=1, distinct=True)
    for epoch in range(3):
        trained = sorted(number for batch in batches for number in batch)
        assert trained == sorted(list(range(200)) * 3), epoch
    for batch in batches:
        assert len(batch) <= 16
        for one in batch:
            others = frozenset().union(*(rows[other].texts for other in batch if other != one))
            assert not others & rows[one].gold
    assert batches == plan(rows, batch_size=16, epochs=3, seed=1, distinct=True)
    assert batches != plan(rows, batch_size=16, epochs=3, seed=2, distinct=True)
