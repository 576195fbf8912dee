"""Usage summed over spans of time, and what the machine cost meanwhile."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select

from local_llm.fileio import bytes_below
from local_llm.home import Home
from local_llm.state import Collection, State, UsageRow
from local_llm.usage import Counts, UsageKind

Json = dict[str, Any]

HOUR_SECONDS = 3600
PAGE_PREFIX = "page_"

# Fields that the client can group by, and the columns behind them. Nobody is a user here, and there are no tiers.
COLUMNS = {
    "project_id": UsageRow.project_id,
    "api_key_id": UsageRow.key_id,
    "model": UsageRow.model,
    "vector_store_id": UsageRow.model,
    "batch": UsageRow.kind,
}
UNKNOWN_HERE = ("user_id", "service_tier")


@dataclass(frozen=True)
class Span:
    """Buckets of `width` seconds, aligned to UTC, that hold `start` to `end` (not included); a page of them."""

    start: int
    end: int
    width: int
    limit: int
    page: str | None = None

    def buckets(self) -> list[int]:
        """When each bucket of the page begins."""
        first = self.start - self.start % self.width
        if self.page is not None:
            following = int(self.page.removeprefix(PAGE_PREFIX))
            first = max(first, following - following % self.width)
        last = min(self.end, first + self.limit * self.width)
        return list(range(first, last, self.width))

    def as_page(self, results: dict[int, list[Json]]) -> Json:
        """What was found, by bucket, as the API shows it."""
        buckets = self.buckets()
        following = buckets[-1] + self.width if buckets else self.end
        has_more = following < self.end
        return {
            "object": "page",
            "data": [
                {"object": "bucket", "start_time": at, "end_time": at + self.width, "results": results.get(at, [])}
                for at in buckets
            ],
            "has_more": has_more,
            "next_page": f"{PAGE_PREFIX}{following}" if has_more else None,
        }


@dataclass(frozen=True)
class Wanted:
    """Which usage. Empty lists: of all."""

    kinds: Sequence[UsageKind]
    group_by: Sequence[str] = ()
    project_ids: Sequence[str] = ()
    key_ids: Sequence[str] = ()
    models: Sequence[str] = ()

    def conditions(self, start: int, end: int) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = [
            UsageRow.minute >= start,
            UsageRow.minute < end,
            UsageRow.kind.in_(self.kinds),
        ]
        for column, values in (
            (UsageRow.project_id, self.project_ids),
            (UsageRow.key_id, self.key_ids),
            (UsageRow.model, self.models),
        ):
            if values:
                found.append(column.in_(values))
        return found


@dataclass(frozen=True)
class Used:
    """Counts of a group. `group` has a value for each field that was grouped by."""

    bucket: int
    group: dict[str, Any]
    counts: Counts


def used(state: State, span: Span, wanted: Wanted) -> list[Used]:
    """Per bucket of the page and group, the oldest first."""
    buckets = span.buckets()
    if not buckets:
        return []
    start = max(buckets[0], span.start - span.start % 60)
    end = min(buckets[-1] + span.width, span.end)
    bucket = (UsageRow.minute - UsageRow.minute % span.width).label("bucket")
    grouped = [name for name in wanted.group_by if name in COLUMNS]
    columns = [COLUMNS[name].label(f"by_{name}") for name in grouped]
    names = ("requests", "input_tokens", "cached_tokens", "output_tokens", "passages")
    sums = [func.sum(getattr(UsageRow, name)).label(name) for name in names]
    query = select(bucket, *columns, *sums).where(*wanted.conditions(start, end))
    with state.reading() as session:
        rows = session.execute(query.group_by(bucket, *columns).order_by(bucket, *columns)).mappings().all()
    return [
        Used(
            row["bucket"],
            {name: _shown(name, row[f"by_{name}"]) for name in grouped},
            Counts(**{name: int(row[name]) for name in names}),
        )
        for row in rows
    ]


def _shown(name: str, value: str) -> Any:
    if name == "batch":
        return value == "batch"
    return value or None  # a caller without a key


def by_bucket(shown: Iterable[tuple[int, Json]]) -> dict[int, list[Json]]:
    found: defaultdict[int, list[Json]] = defaultdict(list)
    for bucket, result in shown:
        found[bucket].append(result)
    return found


def stored_bytes(state: State, place: Home, project_ids: Sequence[str]) -> dict[str, int]:
    """What the collections of each project take on the disk now."""
    with state.reading() as session:
        rows = session.execute(select(Collection.id, Collection.project_id)).all()
    sizes: defaultdict[str, int] = defaultdict(int)
    for identifier, project_id in rows:
        if not project_ids or project_id in project_ids:
            sizes[project_id] += bytes_below(place.collections / identifier)
    return dict(sizes)


@dataclass(frozen=True)
class Machine:
    """What is paid for, whether it works or not. `since`: when the box was set up."""

    usd_per_hour: float
    since: int

    def hours(self, bucket: int, width: int, now: int) -> float:
        """How much of a bucket it was there for, so far."""
        return max(0, min(bucket + width, now) - max(bucket, self.since)) / HOUR_SECONDS


def costs(state: State, span: Span, wanted: Wanted, machine: Machine, now: int) -> dict[int, list[Json]]:
    """The machine's hours of each bucket times their price. Where it is asked who used them, they are shared out by
    tokens (read from the cache: not counted): a rule of division, not what these tokens would have cost.
    """
    everybody = Wanted(wanted.kinds, ("project_id", "api_key_id"))
    tokens: defaultdict[int, defaultdict[tuple[Any, Any], int]] = defaultdict(lambda: defaultdict(int))
    for one in used(state, span, everybody):
        whose = (one.group["project_id"], one.group["api_key_id"])
        tokens[one.bucket][whose] += one.counts.tokens - one.counts.cached_tokens
    found = {}
    for bucket in span.buckets():
        hours = machine.hours(bucket, span.width, now)
        shares = _shares(tokens[bucket], wanted)
        found[bucket] = [
            _cost(group, share * hours, machine.usd_per_hour, wanted.group_by) for group, share in shares if hours
        ]
    return found


def _shares(tokens: dict[tuple[Any, Any], int], wanted: Wanted) -> list[tuple[Json, float]]:
    """Groups that were asked for, and each one's share of the machine. What nobody used is nobody's."""
    total = sum(tokens.values())
    parts = {whose: count / total for whose, count in tokens.items()} if total else {(None, None): 1.0}
    shares: defaultdict[tuple[Any, ...], float] = defaultdict(float)
    for (project_id, key_id), share in parts.items():
        if wanted.project_ids and project_id not in wanted.project_ids:
            continue
        if wanted.key_ids and key_id not in wanted.key_ids:
            continue
        whose = {"project_id": project_id, "api_key_id": key_id}
        shares[tuple(whose[name] for name in ("project_id", "api_key_id") if name in wanted.group_by)] += share
    names = [name for name in ("project_id", "api_key_id") if name in wanted.group_by]
    return [(dict(zip(names, values, strict=True)), share) for values, share in shares.items()]


def _cost(group: Json, hours: float, usd_per_hour: float, group_by: Sequence[str]) -> Json:
    line = {"line_item": "machine hours", "quantity": hours} if "line_item" in group_by else {}
    return {
        "object": "organization.costs.result",
        "amount": {"value": hours * usd_per_hour, "currency": "usd"},
        "line_item": None,
        "project_id": None,
        **group,
        **line,
    }
