"""What it takes until a fact that has changed is answered: searched again for some strategies, trained again for
others. The words of a question are asked before the change, after the document was indexed again, and after a
training.

An answer is right if the new fact's words stand in it side by side and the old one's do not. Seconds are those of
the work and of asking until the answer was right; what other models were asked in between is not in them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from local_llm.answer_measures import containment, without_markers
from local_llm.costs.units import SECONDS_PER_HOUR
from local_llm.errors import InvalidInputError, UnavailableError
from local_llm.evaluation.answers import Answer
from local_llm.evaluation.targets import Target
from local_llm.profiles import RETRIEVING

Way = Literal["re-index", "retrain"]
# The engine may have been stopped for the training, and be starting again.
PATIENCE_SECONDS = 300.0
PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class Fact:
    question: str
    old: str
    new: str


@dataclass(frozen=True)
class Work:
    """`done`: what was worked through, by its unit (passages, tokens ...)."""

    seconds: float
    done: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategies:
    """Who is asked, and how the world is changed.

    `reindex` puts the new document in the old one's place. `retrain` has a target learn the new fact and returns
    who is to be asked then; None: nobody is trained. `trained_before`: what the training of its adapter took.
    """

    targets: Sequence[Target]
    ask: Callable[[Target, str], Answer]
    reindex: Callable[[], Work]
    retrain: Callable[[Target], tuple[Target, Work]] | None
    trained_before: Callable[[Target], Work | None]


@dataclass(frozen=True)
class Outcome:
    """`before`, `after_reindex` and `after_retrain` are answers; None: not asked.

    `way`: what made it right, or would; None: nothing does. `measured` False: `work` and `seconds` are those of the
    training that it had, and nobody saw a right answer. `usd` None: unpriced.
    """

    name: str
    strategy: str
    before: str
    after_reindex: str
    after_retrain: str | None = None
    way: Way | None = None
    measured: bool = False
    seconds: float | None = None
    usd: float | None = None
    work: Work | None = None

    @property
    def told(self) -> str:
        """The outcome in words."""
        if self.measured:
            return f"right after a {self.way}"
        if self.after_retrain is not None:
            return "wrong even after a retrain"
        if self.way == "retrain":
            return f"needs a retrain; {'its last one took this' if self.work else 'what that takes is not known'}"
        if self.strategy in RETRIEVING:
            return "wrong even with the new document"
        return "never: it reads no documents and is not trained"


def measure(world: Strategies, fact: Fact, usd_per_hour: float | None) -> list[Outcome]:
    """Raises: InvalidInputError for facts that cannot be told apart; UnavailableError."""
    if containment(fact.new, fact.old) or containment(fact.old, fact.new):
        raise InvalidInputError(f"{fact.old!r} and {fact.new!r} cannot be told apart: one holds the other")
    before = {one.name: world.ask(one, fact.question) for one in world.targets}
    refuse_failed(before)
    indexed = world.reindex()
    return [_outcome(world, fact, one, before[one.name], indexed, usd_per_hour) for one in world.targets]


def ledger_facts(found: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """What cost reads, by name: no answers."""
    answers = ("before", "after_reindex", "after_retrain")
    rows = {one.name: asdict(one) | {"told": one.told} for one in found}
    return {name: {key: value for key, value in row.items() if key not in answers} for name, row in rows.items()}


def is_right(text: str, fact: Fact) -> bool:
    said = without_markers(text)
    return bool(containment(said, fact.new)) and not containment(said, fact.old)


def refuse_failed(answers: dict[str, Answer]) -> None:
    """Raises: UnavailableError: nothing was changed by then."""
    for name, answer in answers.items():
        if answer.failed:
            raise UnavailableError(f"{name} gave no answer before the change: {answer.error}")


def _outcome(
    world: Strategies, fact: Fact, target: Target, before: Answer, indexed: Work, usd_per_hour: float | None
) -> Outcome:
    after, seconds = _asked(world, target, fact)
    found = Outcome(target.name, target.strategy, before.text, after.text)
    if target.strategy in RETRIEVING and is_right(after.text, fact):
        return _taking(found, "re-index", indexed, indexed.seconds + seconds, usd_per_hour, measured=True)
    if target.adapter is None:
        return found
    if world.retrain is None:
        work = world.trained_before(target)
        return _taking(found, "retrain", work, work.seconds if work else None, usd_per_hour, measured=False)
    trained, work = world.retrain(target)
    last, seconds = _asked(world, trained, fact)
    found = replace(found, after_retrain=last.text)
    right = is_right(last.text, fact)
    return _taking(found, "retrain" if right else None, work, work.seconds + seconds, usd_per_hour, measured=right)


def _taking(
    found: Outcome,
    way: Way | None,
    work: Work | None,
    seconds: float | None,
    usd_per_hour: float | None,
    *,
    measured: bool,
) -> Outcome:
    usd = None if seconds is None or not usd_per_hour else seconds / SECONDS_PER_HOUR * usd_per_hour
    return replace(found, way=way, work=work, seconds=seconds, usd=usd, measured=measured)


def _asked(world: Strategies, target: Target, fact: Fact) -> tuple[Answer, float]:
    """The first answer that did not fail, and the seconds until it came."""
    began = time.perf_counter()
    while True:
        answer = world.ask(target, fact.question)
        seconds = time.perf_counter() - began
        if not answer.failed:
            return answer, seconds
        if seconds > PATIENCE_SECONDS:
            raise UnavailableError(f"{target.name} gave no answer in {seconds:.0f} s: {answer.error}")
        time.sleep(PAUSE_SECONDS)
