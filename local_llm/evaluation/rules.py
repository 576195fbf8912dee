"""What makes an answer one that the team accepts: a file beside the questions, so that it travels with them.

`questions.jsonl` has its rules in `questions.rules.toml`:

    refusal = "I do not know."   # how answers refuse; the usual English words always count

    [right]                      # the answer says what is right: any one of these suffices
    exact = true                 # the right answer, but for case, punctuation and articles
    contains = true              # its words stand in the answer, side by side
    min_f1 = 0.5
    min_rouge_l = 0.5
    json_equal = true            # the same JSON value
    min_judge = 4                # of 5, by the model that --judge names

    [must]                       # and all of these hold, where they apply
    valid_json = false
    matches_schema = true        # the question's `schema`
    cites_evidence = false       # a citation within the question's evidence
    keeps_style = true

    [style]
    max_characters = 600
    must_match = ['^Hello']      # regular expressions, searched for in the whole answer
    must_not_match = ['(?i)as an ai']

A question with `answerable` false is answered rightly by a refusal and by nothing else; a refusal of any other is
never accepted.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from local_llm.errors import InvalidInputError
from local_llm.evaluation.question_set import Question
from local_llm.json_lines import LineError, parse_json
from local_llm.prompts import LONGEST_REFUSAL
from local_llm.section import Section

SUFFIX = ".rules.toml"
HIGHEST_JUDGEMENT = 5


class RightRules(Section):
    """[right]: any one suffices."""

    exact: bool = False
    contains: bool = False
    json_equal: bool = False
    min_f1: float | None = Field(default=None, gt=0, le=1)
    min_rouge_l: float | None = Field(default=None, gt=0, le=1)
    min_judge: int | None = Field(default=None, ge=1, le=HIGHEST_JUDGEMENT)

    def thresholds(self) -> dict[str, float]:
        """What each measure that is named has to reach."""
        flags = {"exact_match": self.exact, "contains": self.contains, "json_equal": self.json_equal}
        least = {"f1": self.min_f1, "rouge_l": self.min_rouge_l, "judge": self.min_judge}
        return {name: 1.0 for name, wanted in flags.items() if wanted} | {
            name: float(value) for name, value in least.items() if value is not None
        }


class MustRules(Section):
    """[must]: all hold, where they apply."""

    valid_json: bool = False
    matches_schema: bool = True
    cites_evidence: bool = False
    keeps_style: bool = True


class StyleRules(Section):
    """[style]: how an answer looks."""

    max_characters: int | None = Field(default=None, ge=1)
    must_match: list[str] = Field(default_factory=list)
    must_not_match: list[str] = Field(default_factory=list)

    @field_validator("must_match", "must_not_match")
    @classmethod
    def _expressions(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return patterns

    def broken(self, answer: str) -> list[str]:
        """What the answer does not keep to."""
        broken = []
        if self.max_characters is not None and len(answer) > self.max_characters:
            broken.append(f"{len(answer)} characters, {self.max_characters} at most")
        broken += [f"does not match {one!r}" for one in self.must_match if not re.search(one, answer)]
        broken += [f"matches {one!r}" for one in self.must_not_match if re.search(one, answer)]
        return broken

    @property
    def is_given(self) -> bool:
        return self != StyleRules()


class Rules(Section):
    """All of a file."""

    refusal: str | None = Field(default=None, min_length=1, max_length=LONGEST_REFUSAL)
    right: RightRules = RightRules()
    must: MustRules = MustRules()
    style: StyleRules = StyleRules()


# Without a file: the right answer's words stand in the answer, or half of the words are shared.
DEFAULT = Rules(right=RightRules(contains=True, min_f1=0.5))


def rules_file(questions: Path) -> Path:
    return questions.with_name(questions.stem + SUFFIX)


def read_rules(path: Path) -> Rules:
    """Raises: InvalidInputError with all that is wrong."""
    try:
        values: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}", param="rules") from None
    try:
        return Rules.model_validate(values)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise InvalidInputError(f"{path}: {'; '.join(wrong)}", param="rules") from None


def rules_of(questions: Path, named: Path | None) -> Rules:
    """Those named, else those beside the questions, else the default."""
    beside = rules_file(questions)
    if named is not None or beside.exists():
        return read_rules(named or beside)
    return DEFAULT


def refuse_unjudgeable(questions: tuple[Question, ...], rules: Rules, *, judged: bool) -> None:
    """Raises: InvalidInputError naming a question of which no rule can tell whether its answer is accepted."""
    for question in questions:
        if not _is_judged(question, rules, judged=judged):
            raise InvalidInputError(
                f"nothing can tell whether an answer to question {question.id!r} is to be accepted",
                hint="give it an `answer`, a `schema`, or `answerable`: false; or rules with a style or a judge",
                param="questions",
            )


def _is_judged(question: Question, rules: Rules, *, judged: bool) -> bool:
    must = rules.must
    return (
        not question.answerable
        or _is_compared(question, rules)
        or (judged and rules.right.min_judge is not None)
        or (must.matches_schema and question.schema is not None)
        or (must.keeps_style and rules.style.is_given)
        or (must.cites_evidence and bool(question.evidence))
        or must.valid_json
    )


def _is_compared(question: Question, rules: Rules) -> bool:
    """Whether a measure that is asked for can hold an answer against a right one."""
    names = set(rules.right.thresholds()) - {"judge"}
    if names == {"json_equal"}:
        return any(is_json(one) for one in question.answers)
    return bool(question.answers) and bool(names)


def is_json(text: str) -> bool:
    """Whether a right answer is to be compared as JSON: an object or a list. `4` is a text as well."""
    try:
        return isinstance(parse_json(text), dict | list)
    except LineError:
        return False
