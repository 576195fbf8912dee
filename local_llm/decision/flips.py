"""What would flip a decision: answers that, changed alone, lead to another strategy."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from local_llm.decision.questions import QUESTIONS, SAID, Answers, Question
from local_llm.decision.tree import decide
from local_llm.profiles import Strategy


@dataclass(frozen=True)
class Flip:
    """`changed`: the questions with the answers that they would need."""

    changed: tuple[tuple[Question, bool], ...]
    strategy: Strategy

    def __str__(self) -> str:
        return f"{' and '.join(SAID[change] for change in self.changed)}: {self.strategy}"

    def applied_to(self, answers: Answers) -> Answers:
        for question, yes in self.changed:
            answers = answers.but(question, yes)
        return answers


def flips(answers: Answers) -> tuple[Flip, ...]:
    """Single answers; where none alone would do, pairs of them. Two always do."""
    return tuple(_flips(answers, 1)) or tuple(_flips(answers, 2))


def _flips(answers: Answers, count: int) -> Iterator[Flip]:
    now = decide(answers).strategy
    for questions in combinations(QUESTIONS, count):
        changed = tuple((question, not answers.to(question).yes) for question in questions)
        flip = Flip(changed, now)
        strategy = decide(flip.applied_to(answers)).strategy
        if strategy != now:
            yield Flip(changed, strategy)
