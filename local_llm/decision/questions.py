"""The five questions, what counts as a yes, and the further needs that answer them.

Source: the article this product follows; its five questions, and its lists of when to use which.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

Question = Literal["examples", "changes", "citations", "low_latency", "both_affordable", "behaviour"]
QUESTIONS: tuple[Question, ...] = get_args(Question)
# `behaviour` is no question of the five: only the needs below answer it, and without them the answer is no.
FIVE: tuple[Question, ...] = QUESTIONS[:-1]

# told: by the user. input: a need that the user named answers it. measured: the ledger or the uploads do.
Source = Literal["told", "input", "measured"]

# Source: the article, "data needed: 100+ examples".
ENOUGH_EXAMPLES = 100
# Source: the article, "the knowledge changes often (daily or weekly)".
OFTEN_DAYS = 7
# Source: the article's table. A tuned model alone answers in 200-500 ms, retrieval begins at 500.
QUICK_MILLISECONDS = 500

ASKED: dict[Question, str] = {
    "examples": f"Are there {ENOUGH_EXAMPLES} or more good examples?",
    "changes": "Does the data change weekly or faster?",
    "citations": "Must sources be cited?",
    "low_latency": "Is very low latency needed?",
    "both_affordable": "Can you afford both, tuning and retrieval?",
    "behaviour": "Is a format, a style or terms of your own needed?",
}

# What an answer says, for sentences.
SAID: dict[tuple[Question, bool], str] = {
    ("examples", True): f"{ENOUGH_EXAMPLES} or more good examples",
    ("examples", False): f"fewer than {ENOUGH_EXAMPLES} good examples",
    ("changes", True): "data that changes weekly or faster",
    ("changes", False): "data that seldom changes",
    ("citations", True): "sources that must be cited",
    ("citations", False): "no need to cite sources",
    ("low_latency", True): "a need for very low latency",
    ("low_latency", False): "no need for very low latency",
    ("both_affordable", True): "both being affordable",
    ("both_affordable", False): "only one being affordable",
    ("behaviour", True): "a format, a style or terms to be learned",
    ("behaviour", False): "no format, style or terms to be learned",
}

# Needs that answer a question with yes, whatever else is said of it: the question stands for them, too.
NEEDS: dict[str, tuple[Question, str]] = {
    "per_user_access": ("changes", "users may see different documents"),
    "too_many_documents": ("changes", "there are too many documents to train on"),
    "add_remove_without_retraining": ("changes", "information is added and removed without retraining"),
    "consistent_times": ("low_latency", "response times must be consistent"),
    "format_needed": ("behaviour", "an output format is needed that the base model does not give"),
    "style_needed": ("behaviour", "a style is needed that the base model does not have"),
    "terms_needed": ("behaviour", "terms or ways of reasoning of the domain must be learned"),
}


@dataclass(frozen=True)
class Answer:
    """`because`: what was told, or the figure that decided."""

    yes: bool
    source: Source = "told"
    because: str = "told"


NOT_NAMED = Answer(False, "input", "no such need was named")


@dataclass(frozen=True)
class Answers:
    """All that the tree asks. `behaviour` stands for the needs of format, style and terms."""

    examples: Answer
    changes: Answer
    citations: Answer
    low_latency: Answer
    both_affordable: Answer
    behaviour: Answer = NOT_NAMED

    def to(self, question: Question) -> Answer:
        answer: Answer = getattr(self, question)
        return answer

    def but(self, question: Question, yes: bool) -> "Answers":
        """The same with one answer changed."""
        return replace(self, **{question: Answer(yes, "told", "supposed")})


def plain(
    *,
    examples: bool,
    changes: bool,
    citations: bool,
    low_latency: bool,
    both_affordable: bool,
    behaviour: bool = False,
) -> Answers:
    """Answers that were told."""
    return Answers(
        examples=Answer(examples),
        changes=Answer(changes),
        citations=Answer(citations),
        low_latency=Answer(low_latency),
        both_affordable=Answer(both_affordable),
        behaviour=Answer(True, "input", "told") if behaviour else NOT_NAMED,
    )
