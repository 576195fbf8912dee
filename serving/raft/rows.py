"""One row of a training file: a question with passages as the server puts them, and the answer as it shows it.

Source: Zhang et al. 2024, "RAFT: Adapting Language Model to Domain Specific RAG" (arXiv:2403.10131), section 3: in
a share P of the rows the passage that holds the answer stands among distractors, in the rest only distractors do.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from index.interface import Hit
from local_llm.prompts import REFUSAL, instruction_of, with_context
from local_llm.questions import Question
from serving.answering.citations import CitationWriter
from serving.raft.passages import Passages

WithoutGold = Literal["answer", "refusal"]


@dataclass(frozen=True)
class RaftSettings:
    """`passages` of a row, the gold one among them; `gold_share` of the rows have it, in [0, 1].

    `without_gold`: what is learned in the others, the "answer" from memory as in the paper, or the `refusal`.
    `prompt` and `only_from_context` as of the profile that the model is for (prompts.instruction_of).
    Source of 0.8: the paper's P, section 3. Of 5: the k of profiles.
    """

    passages: int = 5
    gold_share: float = 0.8
    without_gold: WithoutGold = "answer"
    citations: bool = True
    prompt: str | None = None
    only_from_context: bool = True
    seed: int = 0
    refusal: str = REFUSAL


@dataclass(frozen=True)
class Row:
    """`example` is the line of the training file; `passages` are those of its prompt, in their order.

    `told_of`: all that it tells of: the passages, and the gold one also where only its answer is learned.
    """

    example: dict[str, Any]
    passages: tuple[Hit, ...]
    told_of: tuple[Hit, ...]
    has_gold: bool
    is_cited: bool
    refuses: bool

    @property
    def prompt(self) -> str:
        """The message that holds the passages."""
        return str(self.example["messages"][0]["content"])


def row_of(question: Question, found: Passages, settings: RaftSettings, *, with_gold: bool) -> Row | None:
    """The same for the same question, passages and seed, whatever other rows there are.

    Returns: None if there is no passage to be put before the question: the server would answer without a model.
    """
    gold = found.gold if with_gold else None
    passages = _in_order(question, gold, found.near_misses, settings)
    if not passages:
        return None
    refuses = not with_gold and settings.without_gold == "refusal"
    number = None if gold is None else 1 + passages.index(gold)
    if refuses:
        answer, is_cited = settings.refusal, False
    else:
        answer, is_cited = _as_served(str(question.answer).strip(), passages, number, settings)
    instruction = instruction_of(
        settings.prompt, only_from_context=settings.only_from_context, refusal=settings.refusal
    )
    asked = with_context([{"role": "user", "content": question.text}], passages, instruction)
    messages = [*asked, {"role": "assistant", "content": answer}]
    unseen = () if refuses or found.gold is None or gold is not None else (found.gold,)
    return Row({"messages": messages}, tuple(passages), (*passages, *unseen), gold is not None, is_cited, refuses)


def _in_order(
    question: Question, gold: Hit | None, near_misses: Sequence[Hit], settings: RaftSettings
) -> list[Hit]:
    """By chance: a model must not learn that the first passage is the right one."""
    passages = [*([] if gold is None else [gold]), *near_misses][: settings.passages]
    random.Random(f"{settings.seed} {question.text}").shuffle(passages)
    return passages


def _as_served(answer: str, passages: Sequence[Hit], gold: int | None, settings: RaftSettings) -> tuple[str, bool]:
    """The answer with the markers that the server would show; whether it has any.

    An answer that says too little to be compared is shown with a marker only if the model names its source.
    """
    if not settings.citations:
        return answer, False
    written, is_cited = _marked(answer, passages)
    if is_cited or gold is None:
        return written, is_cited
    claimed, is_cited = _marked(f"{answer} [{gold}]", passages)
    return (claimed, True) if is_cited else (written, False)


def _marked(answer: str, passages: Sequence[Hit]) -> tuple[str, bool]:
    writer = CitationWriter(passages)
    return writer.feed(answer) + writer.finish(), bool(writer.marks)
