"""Whether a trained encoder may take the place of the one before: only if it is certainly better."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from local_llm.bootstrap import FEWEST_GROUPS, Interval
from local_llm.errors import ConflictError
from local_llm.questions import Question
from local_llm.relevance import Measures, differences, means, measure

DECISIVE = "ndcg_10"


class NotBetterError(ConflictError):
    """The trained encoder is not certainly better than the one it was trained from: it is not published."""

    code = "retriever_not_better"


@dataclass(frozen=True)
class Side:
    """One side of the split, measured before and after. `differences`: after minus before, over whole groups."""

    questions: int
    groups: int
    before: Measures
    after: Measures
    differences: dict[str, Interval]

    @property
    def decisive(self) -> Interval:
        return self.differences[DECISIVE]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compared(before: Sequence[Measures], after: Sequence[Measures], groups: Sequence[int]) -> Side:
    """Paired bootstrap at 95 %. Groups of questions that share documents are drawn whole."""
    return Side(len(before), len(set(groups)), means(before), means(after), differences(after, before, groups))


def measures_of(ranked: Sequence[Sequence[str]], questions: Sequence[Question]) -> list[Measures]:
    """`ranked`: documents of each question, best first."""
    return [measure(one, question.documents) for one, question in zip(ranked, questions, strict=True)]


def is_better(dev: Side) -> bool:
    """The rule: the lower bound of the gain in nDCG@10 on dev is above zero, of groups enough to have one."""
    return dev.groups >= FEWEST_GROUPS and dev.decisive.low > 0


def reason(dev: Side) -> str:
    """What the guard saw, for people."""
    gain = dev.decisive
    verdict = "is certainly better" if is_better(dev) else "is not certainly better"
    if dev.groups >= FEWEST_GROUPS and gain.high < 0:
        verdict = "is certainly worse"
    few = ""
    if dev.groups < FEWEST_GROUPS:
        few = f"; they are in {dev.groups} groups that share documents: fewer than {FEWEST_GROUPS} cannot tell"
    return (
        f"the trained encoder {verdict}: on {dev.questions} dev questions nDCG@10 went from "
        f"{dev.before.ndcg_10:.4f} to {dev.after.ndcg_10:.4f}, a change of {gain.mean:+.4f} "
        f"(95 %: {gain.low:+.4f} to {gain.high:+.4f}){few}"
    )
