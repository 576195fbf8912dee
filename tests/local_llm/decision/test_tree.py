"""The tree: every combination of answers against a table written by hand, and what must hold of all of them."""

from itertools import product

import pytest

from local_llm.decision.flips import flips
from local_llm.decision.questions import FIVE, Answers, plain
from local_llm.decision.tree import LEAVES, decide

# examples, changes, citations, low latency, both affordable
TABLE = """
no  no  no  no  no   rag
no  no  no  no  yes  rag
no  no  no  yes no   rag
no  no  no  yes yes  rag
no  no  yes no  no   rag
no  no  yes no  yes  rag
no  no  yes yes no   rag         conflict
no  no  yes yes yes  rag         conflict
no  yes no  no  no   rag
no  yes no  no  yes  rag
no  yes no  yes no   rag         conflict
no  yes no  yes yes  rag         conflict
no  yes yes no  no   rag
no  yes yes no  yes  rag
no  yes yes yes no   rag         conflict
no  yes yes yes yes  rag         conflict
yes no  no  no  no   rag
yes no  no  no  yes  hybrid
yes no  no  yes no   fine_tuned
yes no  no  yes yes  fine_tuned
yes no  yes no  no   rag
yes no  yes no  yes  hybrid
yes no  yes yes no   rag         conflict
yes no  yes yes yes  hybrid      conflict
yes yes no  no  no   rag
yes yes no  no  yes  hybrid
yes yes no  yes no   rag         conflict
yes yes no  yes yes  hybrid      conflict
yes yes yes no  no   rag
yes yes yes no  yes  hybrid
yes yes yes yes no   rag         conflict
yes yes yes yes yes  hybrid      conflict
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]


def answers_of(words: list[str], *, behaviour: bool = False) -> Answers:
    yes = [word == "yes" for word in words]
    return plain(
        examples=yes[0],
        changes=yes[1],
        citations=yes[2],
        low_latency=yes[3],
        both_affordable=yes[4],
        behaviour=behaviour,
    )


EVERY = [
    answers_of(list(words), behaviour=behaviour)
    for words in product(("no", "yes"), repeat=5)
    for behaviour in (False, True)
]


def test_the_table_has_every_combination_once() -> None:
    assert sorted(tuple(row[:5]) for row in ROWS) == sorted(product(("no", "yes"), repeat=5))


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_each_combination_leads_where_the_article_says(row: list[str]) -> None:
    decision = decide(answers_of(row))
    assert decision.strategy == row[5]
    assert (decision.conflict is not None) == (row[6:] == ["conflict"])


def test_the_path_ends_in_its_leaf_and_tells_all_that_it_rests_on() -> None:
    for answers in EVERY:
        decision = decide(answers)
        last = decision.path[-1]
        assert LEAVES[last.node, last.yes] == decision.strategy
        for step in decision.path:
            assert all(ground.answer == answers.to(ground.question) for ground in step.grounds)
    assert [step.node for step in decide(answers_of(["yes"] * 5)).path] == ["examples", "tuning", "both_affordable"]


def test_a_conflict_names_both_sides() -> None:
    conflict = decide(answers_of(["yes", "yes", "yes", "yes", "no"])).conflict
    assert conflict is not None
    assert "very low latency" in conflict
    assert "changes weekly or faster" in conflict
    assert "must be cited" in conflict
    assert "cited" not in str(decide(answers_of(["yes", "yes", "no", "yes", "no"])).conflict)


def test_more_examples_never_argue_against_tuning() -> None:
    tuned = ("fine_tuned", "hybrid")
    for answers in EVERY:
        few, many = decide(answers.but("examples", False)), decide(answers.but("examples", True))
        assert few.strategy not in tuned or many.strategy in tuned


def test_frequent_change_and_citations_never_argue_against_retrieval() -> None:
    retrieving = ("rag", "hybrid")
    for answers in EVERY:
        for question in ("changes", "citations"):
            assert decide(answers.but(question, True)).strategy in retrieving


def test_behaviour_argues_for_tuning_only_with_examples_and_nothing_for_retrieval() -> None:
    for row in ROWS:
        with_need, without = decide(answers_of(row, behaviour=True)), decide(answers_of(row))
        if row[:3] == ["yes", "no", "no"]:
            assert with_need.strategy == "fine_tuned"
        else:
            assert with_need.strategy == without.strategy


def test_the_path_says_when_behaviour_decided() -> None:
    decided = decide(answers_of(["yes", "no", "no", "no", "yes"], behaviour=True))
    assert "format, a style or terms" in str(decided.path[-1].why)
    assert "behaviour" in [ground.question for ground in decided.path[-1].grounds]
    quick = decide(answers_of(["yes", "no", "no", "yes", "yes"], behaviour=True))
    assert quick.path[-1].why is None


def test_every_flip_does_what_it_says_and_none_is_missing() -> None:
    for answers in EVERY:
        now = decide(answers).strategy
        found = flips(answers)
        assert found
        for flip in found:
            assert flip.strategy != now
            assert decide(flip.applied_to(answers)).strategy == flip.strategy
            assert all(answers.to(question).yes != yes for question, yes in flip.changed)
        single = {flip.changed[0][0] for flip in found if len(flip.changed) == 1}
        for question in (*FIVE, "behaviour"):
            other = decide(answers.but(question, not answers.to(question).yes)).strategy
            assert (other != now) == (question in single)


def test_pairs_are_told_only_where_no_single_answer_flips_it() -> None:
    stuck = answers_of(["no", "yes", "no", "no", "no"])
    assert [str(flip) for flip in flips(stuck)] == [
        "100 or more good examples and both being affordable: hybrid",
    ]
