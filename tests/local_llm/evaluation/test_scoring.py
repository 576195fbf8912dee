"""Answers judged: each expected value is derived by hand."""

from pathlib import Path
from typing import Any

import pytest

from local_llm.errors import InvalidInputError
from local_llm.evaluation.answers import Answer
from local_llm.evaluation.question_set import Evidence, Question
from local_llm.evaluation.rules import (
    DEFAULT,
    MustRules,
    RightRules,
    Rules,
    StyleRules,
    read_rules,
    refuse_unjudgeable,
    rules_of,
)
from local_llm.evaluation.scoring import Score, score

ASKED = ({"role": "user", "content": "How long?"},)


def question(**fields: Any) -> Question:
    return Question("q", ASKED, **fields)


def judged(asked: Question, text: str, rules: Rules = DEFAULT, judgement: int | None = None, **more: Any) -> Score:
    return score(asked, Answer(asked.asked_sha256, text, **more), rules, judgement)


def test_the_best_of_several_right_answers_counts() -> None:
    found = judged(question(answers=("two days", "four hours")), "It takes four hours. [1]")
    assert found.accepted
    # said: it takes four hours (4), wanted: four hours (2), shared 2: F1 = 2 * 2 / 6
    assert found.measures["f1"] == pytest.approx(2 / 3, abs=1e-9)
    assert found.measures["rouge_l"] == pytest.approx(2 / 3, abs=1e-9)
    assert (found.measures["contains"], found.measures["exact_match"]) == (1, 0)


def test_any_measure_of_what_is_right_suffices() -> None:
    asked = question(answers=("it charges in four hours",))
    strict = Rules(right=RightRules(exact=True))
    either = Rules(right=RightRules(exact=True, min_f1=0.5))
    said = "it charges for four hours"  # shared 4 of 5 and 5: F1 = 0.8
    assert not judged(asked, said, strict).accepted
    assert judged(asked, said, either).accepted
    assert judged(asked, said, strict).reasons == ("not right: exact_match 0.00 < 1",)


def test_a_refusal_is_right_only_where_nothing_can_be_known() -> None:
    known, unknown = question(answers=("four hours",)), question(answerable=False)
    refused = judged(known, "I do not know. It is four hours.")
    assert (refused.accepted, refused.reasons, refused.measures["refused_wrongly"]) == (False, ("refused",), 1)
    assert judged(unknown, "I don't know.") == Score(True, {"refused_rightly": 1.0})
    assert not judged(unknown, "Four hours.").accepted
    assert judged(unknown, "Niets gevonden.", Rules(refusal="Niets gevonden")).accepted
    assert judged(unknown, "Pas de réponse", refused=True).accepted  # so says the endpoint


def test_an_answer_that_failed_counts_as_an_empty_one() -> None:
    found = judged(question(answers=("four hours",)), "", error="status 503")
    assert (found.accepted, found.reasons) == (False, ("failed: status 503",))
    assert found.measures["f1"] == 0
    assert not judged(question(answerable=False), "", error="status 503").accepted


SCHEMA = {"type": "object", "properties": {"hours": {"type": "integer"}}, "required": ["hours"]}


@pytest.mark.parametrize(
    ("said", "valid", "matches", "equal"),
    [
        ('{"hours": 4}', 1, 1, 1),
        ('{"hours": 4.0}', 1, 1, 1),
        ('{"hours": 5}', 1, 1, 0),
        ('{"hours": "four"}', 1, 0, 0),
        ("four", 0, 0, 0),
        ('{"hours": 4, "hours": 4}', 0, 0, 0),  # two readers could understand it differently
    ],
)
def test_json_is_valid_matches_its_schema_and_equals(said: str, valid: int, matches: int, equal: int) -> None:
    asked = question(schema=SCHEMA, answers=('{"hours": 4}',))
    found = judged(asked, said, Rules(right=RightRules(json_equal=True)))
    assert [found.measures[name] for name in ("json_valid", "schema_match", "json_equal")] == [
        valid,
        matches,
        equal,
    ]
    assert found.accepted is bool(valid and matches and equal)


def test_a_schema_that_points_elsewhere_fetches_nothing() -> None:
    asked = question(schema={"$ref": "https://example.invalid/schema.json"})
    assert judged(asked, "{}").measures["schema_match"] == 0


def test_style_is_measured_and_can_be_demanded() -> None:
    style = StyleRules(max_characters=20, must_match=["^Hello"], must_not_match=["(?i)sorry"])
    demanded, told = Rules(style=style), Rules(style=style, must=MustRules(keeps_style=False))
    assert judged(question(), "Hello, four hours.", demanded).accepted
    bad = judged(question(), "Sorry, it is four hours.", demanded)
    assert bad.reasons == ("24 characters, 20 at most", "does not match '^Hello'", "matches '(?i)sorry'")
    assert judged(question(), "Sorry, it is four hours.", told).accepted
    assert judged(question(), "Sorry, it is four hours.", told).measures["style"] == 0


def test_citations_are_measured_and_can_be_demanded() -> None:
    evidence = (Evidence(frozenset({"a.md"}), 10, 20), Evidence(frozenset({"b.md"}), text="lasts two days"))
    citations = (
        {"document": "a.md", "start": 5, "end": 30},  # contains the evidence
        {"document": "a.md", "start": 15, "end": 30},  # only touches it
        {"document": "c.md", "quote": "It lasts two days."},  # another document
    )
    asked, rules = question(answers=("four hours",), evidence=evidence), Rules(must=MustRules(cites_evidence=True))
    found = judged(asked, "Four hours.", rules, citations=citations)
    # 1 of 3 citations is right; 1 of 2 pieces of evidence is cited
    assert found.measures["citation_precision"] == pytest.approx(1 / 3, abs=1e-9)
    assert found.measures["citation_recall"] == pytest.approx(1 / 2, abs=1e-9)
    assert found.accepted
    none = judged(asked, "Four hours.", rules)
    assert none.reasons == ("cites no evidence",)
    assert "citation_precision" not in none.measures  # of nothing there is no share


def test_a_judge_is_one_measure_of_what_is_right() -> None:
    rules = Rules(right=RightRules(exact=True, min_judge=4))
    asked = question(answers=("four hours",))
    assert judged(asked, "240 minutes", rules, 4).accepted
    assert not judged(asked, "240 minutes", rules, 3).accepted
    assert not judged(asked, "240 minutes", rules).accepted


def test_rules_lie_beside_the_questions(tmp_path: Path) -> None:
    questions = tmp_path / "faq.jsonl"
    assert rules_of(questions, None) == DEFAULT
    (tmp_path / "faq.rules.toml").write_text('[right]\nmin_f1 = 0.7\n[style]\nmust_match = ["^A"]\n')
    assert rules_of(questions, None).right.min_f1 == 0.7
    (tmp_path / "other.toml").write_text("[right]\nexact = true\n")
    assert rules_of(questions, tmp_path / "other.toml").right.exact


def test_all_that_is_wrong_with_rules_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[right]\nmin_f2 = 1\nmin_f1 = 2\n[style]\nmust_match = ["("]\n')
    with pytest.raises(InvalidInputError) as told:
        read_rules(tmp_path / "r.toml")
    for part in ("right.min_f2", "right.min_f1", "style.must_match", "no regular expression"):
        assert part in told.value.message


def test_a_question_that_nothing_can_judge_is_refused_before_it_is_asked() -> None:
    bare = (question(),)
    with pytest.raises(InvalidInputError, match="whether an answer to question 'q' is to be accepted"):
        refuse_unjudgeable(bare, DEFAULT, judged=False)
    refuse_unjudgeable(bare, Rules(right=RightRules(min_judge=4)), judged=True)
    refuse_unjudgeable(bare, Rules(style=StyleRules(max_characters=9)), judged=False)
    refuse_unjudgeable((question(answers=("a",)),), DEFAULT, judged=False)
    only_judge = Rules(right=RightRules(min_judge=4))
    with pytest.raises(InvalidInputError):
        refuse_unjudgeable((question(answers=("a",)),), only_judge, judged=False)


def test_a_list_in_an_answers_json_is_no_citation_marker() -> None:
    said = '{"hours": 4, "steps": [1], "pages": [2]}'
    asked = question(answers=('{"steps": [1], "pages": [2], "hours": 4}',), schema=SCHEMA)
    found = judged(asked, said, Rules(right=RightRules(json_equal=True)))
    assert found.accepted
    assert [found.measures[name] for name in ("json_valid", "schema_match", "json_equal")] == [1, 1, 1]
    assert judged(question(schema=SCHEMA), '{"hours": 4} [3]').accepted  # one behind it is


def test_an_answer_that_the_judge_said_nothing_of_is_not_accepted() -> None:
    asked, rules = question(answers=("four hours",)), Rules(right=RightRules(min_judge=4))
    answer = Answer(asked.asked_sha256, "Two days.")
    found = score(asked, answer, rules, None, judged=True)
    assert (found.accepted, found.reasons) == (False, ("not right: no judgement that could be read",))
    assert score(asked, answer, rules, 4, judged=True).accepted
    either = Rules(right=RightRules(min_judge=4, contains=True))
    assert score(asked, Answer("", "It takes four hours."), either, None, judged=True).accepted


def test_a_text_cannot_be_compared_as_json_alone() -> None:
    rules = Rules(right=RightRules(json_equal=True))
    with pytest.raises(InvalidInputError, match="nothing can tell"):
        refuse_unjudgeable((question(answers=("four hours",)),), rules, judged=False)
    refuse_unjudgeable((question(answers=('{"hours": 4}',)),), rules, judged=False)
