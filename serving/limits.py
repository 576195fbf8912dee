"""What one key may use: requests and tokens a minute, refilled all the time, and tokens a day.

An answer's tokens are known when it has ended. So a key that has any left may ask; what it takes beyond is a debt
that it waits for. A key's batches, which ask many things at once, ask only as many as what is left is likely to be
enough for, and their debt is never more than a minute's worth: so long an interactive request may have to wait.
Several gateway processes each keep their part of a minute's limit.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from local_llm.errors import RateLimitError
from local_llm.permissions import Caller

MINUTE_SECONDS = 60.0
DAY_SECONDS = 24 * 3600
# A full bucket is as good as a new one: beyond so many they are forgotten.
MOST_KEYS = 10_000
# When what other requests of a key's batches will take is not known yet: soon it is.
SOON_SECONDS = 1.0
# How much the latest request of a batch tells of what the next will take.
LATEST_SHARE = 0.2

Header = tuple[bytes, bytes]


class KeyLimits(Protocol):
    """None: no limit."""

    @property
    def requests_per_minute(self) -> int | None: ...
    @property
    def tokens_per_minute(self) -> int | None: ...
    @property
    def tokens_per_day(self) -> int | None: ...


def limits_of(caller: Caller) -> KeyLimits | None:
    """None: nothing limits this caller."""
    return caller.limits


@dataclass
class _Bucket:
    """Holds `limit` when full, and fills in a minute."""

    limit: float
    level: float
    at: float

    def refill(self, limit: float, now: float) -> None:
        if limit != self.limit:  # an administrator changed it
            self.level += limit - self.limit
            self.limit = limit
        self.level = min(limit, self.level + (now - self.at) * limit / MINUTE_SECONDS)
        self.at = now

    def seconds_until(self, level: float) -> float:
        return max(0.0, (level - self.level) * MINUTE_SECONDS / self.limit)


@dataclass
class _UnderWay:
    """Requests of a key's batches that are being answered, and how many tokens each is likely to take."""

    count: int = 0
    each: float | None = None

    @property
    def expected(self) -> float | None:
        """None: nobody knows yet."""
        return 0.0 if not self.count else None if self.each is None else self.count * self.each

    def learn(self, tokens: int) -> None:
        self.each = tokens if self.each is None else self.each + LATEST_SHARE * (tokens - self.each)


class Limits:
    """All on one event loop."""

    def __init__(
        self,
        *,
        processes: int = 1,
        tokens_today: Callable[[str], int] = lambda _key: 0,
        limits_of: Callable[[Caller], KeyLimits | None] = limits_of,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._processes = processes
        self._tokens_today = tokens_today
        self._limits_of = limits_of
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._batches: dict[str, _UnderWay] = {}

    def enter(self, caller: Caller) -> None:
        """Counts a request.

        Raises: RateLimitError with the time until the next one is welcome.
        """
        limits = self._limits_of(caller)
        if limits is None or caller.key_id is None:
            return
        self._check_day(caller.key_id, limits.tokens_per_day)
        tokens = self._bucket(caller.key_id, "tokens", limits.tokens_per_minute)
        if tokens is not None and tokens.level <= 0:
            raise self._refusal("tokens", limits.tokens_per_minute, tokens.seconds_until(1))
        requests = self._bucket(caller.key_id, "requests", limits.requests_per_minute)
        if requests is not None:
            if requests.level < 1:
                raise self._refusal("requests", limits.requests_per_minute, requests.seconds_until(1))
            requests.level -= 1

    @contextmanager
    def batch(self, caller: Caller) -> Iterator[None]:
        """The block is a try of a request of a batch. It counts no request: its tokens are what is looked at.

        Raises: RateLimitError with the time until it is welcome.
        """
        limits, key_id = self._limits_of(caller), caller.key_id
        if limits is None or key_id is None:
            yield
            return
        under_way = self._under_way(key_id)
        self._check_day(key_id, limits.tokens_per_day, under_way.expected)
        self._check_minute(key_id, limits.tokens_per_minute, under_way.expected)
        under_way.count += 1
        try:
            yield
        finally:
            under_way.count -= 1

    def spent(self, caller: Caller, tokens: int, *, batch: bool = False) -> None:
        """What a request took, when it has ended."""
        limits = self._limits_of(caller)
        if limits is None or caller.key_id is None:
            return
        bucket = self._bucket(caller.key_id, "tokens", limits.tokens_per_minute)
        if batch:
            self._under_way(caller.key_id).learn(tokens)
        if bucket is not None:
            left = bucket.level - tokens
            bucket.level = max(left, min(bucket.level, -bucket.limit)) if batch else left

    def headers(self, caller: Caller | None) -> list[Header]:
        """OpenAI's x-ratelimit headers, for those limits that are set."""
        limits = self._limits_of(caller) if caller is not None else None
        if limits is None or caller is None or caller.key_id is None:
            return []
        found: list[Header] = []
        for kind, limit in (("requests", limits.requests_per_minute), ("tokens", limits.tokens_per_minute)):
            bucket = self._bucket(caller.key_id, kind, limit)
            if bucket is not None:
                name = b"-" + kind.encode()
                found += [
                    (b"x-ratelimit-limit" + name, str(limit).encode()),
                    (b"x-ratelimit-remaining" + name, str(max(0, int(bucket.level))).encode()),
                    (b"x-ratelimit-reset" + name, _duration(bucket.seconds_until(bucket.limit))),
                ]
        return found

    def _check_day(self, key_id: str, limit: int | None, expected: float | None = 0.0) -> None:
        """`expected`: what is under way will take; None: nobody knows."""
        if limit is None:
            return
        used = self._tokens_today(key_id)
        if used >= limit:
            raise RateLimitError(
                f"this key has used {used:,} tokens today; it may use {limit:,} a day",
                hint="the day ends at midnight UTC",
                retry_after_seconds=DAY_SECONDS - time.time() % DAY_SECONDS,
                limit="tokens_per_day",
            )
        if expected is None or used + expected >= limit:
            raise self._refusal("tokens", limit, SOON_SECONDS, "day")

    def _check_minute(self, key_id: str, limit: int | None, expected: float | None) -> None:
        bucket = self._bucket(key_id, "tokens", limit)
        if bucket is None:
            return
        if expected is None:
            raise self._refusal("tokens", limit, SOON_SECONDS)
        if bucket.level <= expected:
            seconds = bucket.seconds_until(min(expected + 1, bucket.limit))
            raise self._refusal("tokens", limit, max(seconds, SOON_SECONDS))

    def _under_way(self, key_id: str) -> _UnderWay:
        if key_id not in self._batches and len(self._batches) >= MOST_KEYS:
            self._batches = {name: one for name, one in self._batches.items() if one.count}
        return self._batches.setdefault(key_id, _UnderWay())

    def _bucket(self, key_id: str, kind: str, limit: int | None) -> _Bucket | None:
        if limit is None:
            return None
        now, part = self._clock(), max(1.0, limit / self._processes)
        bucket = self._buckets.get((key_id, kind))
        if bucket is None:
            self._forget_idle(now)
            bucket = self._buckets[key_id, kind] = _Bucket(part, part, now)
        bucket.refill(part, now)
        return bucket

    def _forget_idle(self, now: float) -> None:
        if len(self._buckets) >= MOST_KEYS:
            kept = {}
            for name, bucket in self._buckets.items():
                bucket.refill(bucket.limit, now)
                if bucket.level < bucket.limit:
                    kept[name] = bucket
            self._buckets = kept

    def _refusal(self, kind: str, limit: int | None, seconds: float, span: str = "minute") -> RateLimitError:
        return RateLimitError(
            f"this key may use {limit:,} {kind} a {span}, and has none left for now",
            hint=f"ask again in {seconds:.1f} s",
            retry_after_seconds=seconds,
            limit=f"{kind}_per_{span}",
        )


def _duration(seconds: float) -> bytes:
    """As the API writes them: 250ms, 12s, 6m0s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms".encode()
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s".encode() if minutes else f"{rest}s".encode()
