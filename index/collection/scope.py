"""What a search may return, and what it returns before anything is read of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from index.collection.attributes import Scalar
from index.collection.filters import Filter, matches
from local_llm.permissions import Principals


@dataclass(frozen=True)
class Scope:
    """Documents that one of `principals` may see (None: all) and that pass the filter, if there is one."""

    principals: Principals
    filter: Filter | None = None

    def admits(self, allow: Principals, attributes: Mapping[str, Scalar]) -> bool:
        seen = self.principals is None or allow is None or not set(allow).isdisjoint(self.principals)
        return seen and (self.filter is None or matches(self.filter, attributes))


EVERYTHING = Scope(None)


@dataclass(frozen=True)
class Candidate:
    """A passage found, with what speaks for it: more is better, in the measure of whoever found it."""

    passage_id: int
    score: float
