"""What is compared: each setting is a model and where its context comes from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from local_llm.profiles import BASE, Strategy
from quality_bench.strategies.prompts import SHORT

PASSAGES = 3

# served: by the profile, as its strategy has it. gold: the gold passage and others that were retrieved. absent:
# retrieved passages of other documents alone, none of which holds the answer: a refusal is right.
Context = Literal["served", "gold", "absent"]
Adapter = Literal["plain", "raft", "raft-refusal"]


@dataclass(frozen=True)
class Profile:
    """Served under `name`. `few_shot`: says how to answer by examples, in place of `prompt`."""

    name: str
    strategy: Strategy
    adapter: Adapter | None = None
    prompt: str | None = None
    few_shot: bool = False


@dataclass(frozen=True)
class Setting:
    name: str
    profile: Profile
    context: Context = "served"

    @property
    def adapter(self) -> Adapter | None:
        return self.profile.adapter


PROFILES = (
    Profile("quality-base", "base", prompt=SHORT),
    Profile("quality-fine-tuned", "fine_tuned", "plain", SHORT),
    Profile("quality-rag", "rag", few_shot=True),
    Profile("quality-rag-zero-shot", "rag", prompt=SHORT),
    Profile("quality-plain-rag", "hybrid", "plain"),
    Profile("quality-hybrid", "hybrid", "raft"),
    Profile("quality-refusal", "hybrid", "raft-refusal"),
)
_BASE, _TUNED, _RAG, _ZERO_SHOT, _PLAIN_RAG, _HYBRID, _REFUSAL = PROFILES

SETTINGS = (
    Setting("base", _BASE),
    Setting("fine_tuned", _TUNED),
    Setting("rag", _RAG),
    Setting("rag_zero_shot", _ZERO_SHOT),
    Setting("plain_rag", _PLAIN_RAG),
    Setting("hybrid", _HYBRID),
    Setting("refusal", _REFUSAL),
    Setting("raft_gold", _HYBRID, "gold"),
    Setting("rag_absent", _RAG, "absent"),
    Setting("plain_rag_absent", _PLAIN_RAG, "absent"),
    Setting("hybrid_absent", _HYBRID, "absent"),
    Setting("refusal_absent", _REFUSAL, "absent"),
)

# The first minus the second. The first pair is the one that the training with context is judged by.
CONTRASTS = (
    ("hybrid", "plain_rag"),
    ("hybrid", "rag"),
    ("hybrid", "rag_zero_shot"),
    ("plain_rag", "rag"),
    ("hybrid", "fine_tuned"),
    ("refusal", "hybrid"),
    ("raft_gold", "hybrid"),
)
# The same questions answerable and not.
REFUSALS = (
    ("rag", "rag_absent"),
    ("plain_rag", "plain_rag_absent"),
    ("hybrid", "hybrid_absent"),
    ("refusal", "refusal_absent"),
)


def settings_with(adapters: frozenset[Adapter]) -> Iterator[Setting]:
    """Those that need no other adapters than these."""
    return (one for one in SETTINGS if one.adapter is None or one.adapter in adapters)


def model_of(setting: Setting, adapters: dict[Adapter, str]) -> str:
    """The model that answers: `base` or an `ft:` name."""
    return BASE if setting.adapter is None else adapters[setting.adapter]
