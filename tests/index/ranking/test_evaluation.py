"""What `index evaluate` says of a ranking, and what it would choose."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from index.interface import DocumentInfo, Hit, Index, Ranking
from index.ranking.evaluation import ALL_OFF, Evaluation, evaluate, name_of, rankings_of
from local_llm.errors import InvalidInputError
from local_llm.permissions import Caller
from local_llm.questions import Question, read_questions

CALLER = Caller("proj_1", "admin", ())
Found = Callable[[Ranking, int], Sequence[str]]


class Answers:
    """Finds documents by the ranking and the number in the question's text."""

    def __init__(self, found: Found):
        self._found = found

    def search(self, caller: Caller, collection: str, query: str, k: int, *, ranking: Ranking) -> list[Hit]:
        return [hit(name) for name in self._found(ranking, int(query))]


def hit(name: str) -> Hit:
    return Hit("c", name, name, name, None, {}, name, 1, None, 0, 1, "x", "", 0.5, 1)


def evaluated(found: Found, *, reranker: str | None = None, questions: int = 40) -> Evaluation:
    asked = [Question(str(number), frozenset({"gold"})) for number in range(questions)]
    return evaluate(cast(Index, Answers(found)), CALLER, "c", asked, reranker=reranker)


def verdicts(found: Evaluation) -> dict[tuple[str, str], str]:
    return {(one.part, one.beside): one.verdict for one in found.effects}


def test_part_that_raises_is_chosen() -> None:
    found = evaluated(lambda ranking, _: ["gold"] if ranking.lexical else ["x", "gold"])
    assert verdicts(found) == {
        ("merged", "dense"): "makes no certain difference",
        ("lexical", "dense"): "raises",
        ("lexical", "dense + merged"): "raises",
        ("merged", "dense + lexical"): "makes no certain difference",
    }
    assert found.best == Ranking(lexical=True)


def test_part_that_lowers_is_never_chosen() -> None:
    found = evaluated(lambda ranking, _: ["x", "gold"] if ranking.lexical else ["gold"])
    assert verdicts(found)["lexical", "dense"] == "lowers"
    assert found.best == ALL_OFF


def test_gain_that_chance_may_have_made_is_not_chosen() -> None:
    def found(ranking: Ranking, question: int) -> list[str]:
        lucky = question % 20 == 0 if ranking.lexical else question % 40 == 1
        return ["gold"] if lucky else ["x", "gold"]

    result = evaluated(found)
    better = next(one for one in result.rankings if one.ranking == Ranking(lexical=True))
    assert better.means.ndcg_10 > result.rankings[0].means.ndcg_10
    assert verdicts(result)["lexical", "dense"] == "makes no certain difference"
    assert result.best == ALL_OFF


def test_parts_are_chosen_one_after_the_other() -> None:
    """Of three parts two help, each beside the other: what the third adds to them is nothing."""

    def found(ranking: Ranking, _: int) -> list[str]:
        return ["x"] * (ranking.reranker is None) + ["y"] * (not ranking.lexical) + ["gold"]

    result = evaluated(found, reranker="r")
    assert len(result.rankings) == 8
    assert result.best == Ranking(lexical=True, reranker="r")


def test_document_counts_once_by_its_best_passage() -> None:
    # Ranked: a, b, gold: 1 / log2(4) = 0.5, though gold is the fifth passage.
    result = evaluated(lambda *_: ["a", "a", "b", "a", "gold"], questions=1)
    assert result.rankings[0].means.ndcg_10 == pytest.approx(0.5, abs=1e-9)


def test_all_combinations_are_measured_all_off_first() -> None:
    names = [name_of(one) for one in rankings_of(None)]
    assert names == ["dense", "dense + merged", "dense + lexical", "dense + lexical + merged"]
    assert len({*rankings_of("r")}) == 8


# Questions


def info(name: str) -> DocumentInfo:
    return DocumentInfo(f"doc_{name}", name, name, None, name, 1, "text/plain", None, {}, 1, 0)


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_documents_are_named_by_name_or_id_in_any_of_the_fields(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.jsonl",
        {"question": "one", "documents": ["a", "doc_b"]},
        {"question": "two", "document_ids": ["b"]},
        "",
        {"question": "three", "document_id": "a"},
    )
    found = read_questions(path, [info("a"), info("b")])
    assert [one.documents for one in found.asked] == [{"doc_a", "doc_b"}, {"doc_b"}, {"doc_a"}]
    assert (found.duplicates, found.without_document, found.unknown) == (0, 0, 0)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.jsonl",
        {"question": "One?", "documents": ["a", "elsewhere"]},
        {"question": "one? ", "documents": ["b"]},
        {"question": "two", "documents": ["elsewhere"]},
    )
    found = read_questions(path, [info("a"), info("b")])
    assert [one.text for one in found.asked] == ["One?"]
    assert found.asked[0].documents == {"doc_a", "doc_b"}  # asked twice, it has the documents of both
    assert (found.duplicates, found.without_document, found.unknown) == (1, 1, 2)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "line 1 has no `question`"),
        ({"question": " ", "documents": ["a"]}, "line 1 has no `question`"),
        ({"question": "q"}, "line 1 has no `documents`"),
        ({"question": "q", "documents": "a"}, "line 1 has no `documents`"),
        ({"question": "q", "documents": ["a"], "answer": 5}, "line 1 has an `answer` that is no text"),
        ('{"question": "q", "question": "r", "documents": ["a"]}', "line 1 is `question` given more than once"),
        ({"question": "q", "documents": [1]}, "line 1 has no `documents`"),
        ({"question": "q", "documents": ["elsewhere"]}, "no question whose documents are in the collection"),
    ],
)
def test_wrong_questions_are_named(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_questions(write(tmp_path / "q.jsonl", row), [info("a")])
