"""The decision tree: answers in, a strategy out, with the way that led to it.

    fewer than 100 good examples ............................................... rag
    low latency, and neither change nor citations .............................. fine_tuned
    both affordable ............................................................ hybrid
    else ....................................................................... rag

A format, style or terms to be learned count as low latency does: with examples there, and nothing that asks for
retrieval, they are what tuning is for. Source: the article this product follows.
"""

from dataclasses import dataclass
from typing import Literal

from local_llm.decision.questions import QUICK_MILLISECONDS, SAID, Answer, Answers, Question
from local_llm.profiles import Strategy

Node = Literal["examples", "tuning", "both_affordable"]

AT_NODE: dict[Node, str] = {
    "examples": "100 or more good examples?",
    "tuning": "Low latency needed, and neither frequent change nor citations?",
    "both_affordable": "Both affordable?",
}
# Where a node's answer ends the way. Otherwise the next node is asked.
LEAVES: dict[tuple[Node, bool], Strategy] = {
    ("examples", False): "rag",
    ("tuning", True): "fine_tuned",
    ("both_affordable", True): "hybrid",
    ("both_affordable", False): "rag",
}


@dataclass(frozen=True)
class Ground:
    """An answer that a step of the way rests on."""

    question: Question
    answer: Answer


@dataclass(frozen=True)
class Step:
    node: Node
    question: str
    yes: bool
    grounds: tuple[Ground, ...]
    why: str | None = None  # where a need stands in for the question's own words


@dataclass(frozen=True)
class Decision:
    """`conflict`: why no strategy gives all that is asked for; None where one does."""

    strategy: Strategy
    path: tuple[Step, ...]
    conflict: str | None


def decide(answers: Answers) -> Decision:
    path: list[Step] = []
    for step in (_examples(answers), _tuning(answers), _both_affordable(answers)):
        path.append(step)
        if (step.node, step.yes) in LEAVES:
            break
    return Decision(LEAVES[path[-1].node, path[-1].yes], tuple(path), _conflict(answers))


def _examples(answers: Answers) -> Step:
    return Step("examples", AT_NODE["examples"], answers.examples.yes, _grounds(answers, "examples"))


def _tuning(answers: Answers) -> Step:
    """The grounds are all that it asks, so that a reader sees which of them decided."""
    wanted = answers.low_latency.yes or answers.behaviour.yes
    yes = wanted and not _for_retrieval(answers)
    asked: list[Question] = ["low_latency", "changes", "citations"]
    if answers.behaviour.yes:
        asked.insert(1, "behaviour")
    why = None
    if yes and not answers.low_latency.yes:
        why = (
            f"{SAID['behaviour', True]} argue for tuning as low latency does: there are examples, and nothing "
            "asks for retrieval"
        )
    return Step("tuning", AT_NODE["tuning"], yes, _grounds(answers, *asked), why)


def _both_affordable(answers: Answers) -> Step:
    question: Node = "both_affordable"
    return Step(question, AT_NODE[question], answers.both_affordable.yes, _grounds(answers, "both_affordable"))


def _conflict(answers: Answers) -> str | None:
    retrieval = _for_retrieval(answers)
    if not (answers.low_latency.yes and retrieval):
        return None
    reasons = " and ".join(SAID[question, True] for question in retrieval)
    quick = SAID["low_latency", True]
    if answers.low_latency.source == "measured":  # nobody said that it is needed
        quick = f"retrieval that takes more than {QUICK_MILLISECONDS} ms"
    return f"{quick} asks for a model without retrieval; {reasons} for one with it"


def _for_retrieval(answers: Answers) -> list[Question]:
    asked: tuple[Question, ...] = ("changes", "citations")
    return [question for question in asked if answers.to(question).yes]


def _grounds(answers: Answers, *questions: Question) -> tuple[Ground, ...]:
    return tuple(Ground(question, answers.to(question)) for question in questions)
