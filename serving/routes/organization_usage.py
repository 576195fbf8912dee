"""/v1/organization/usage/… and /v1/organization/costs. Owners only. Usage trails by a second at most."""

import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import func, select

from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.state import Project
from local_llm.usage import UsageKind
from serving.organization import buckets
from serving.organization.buckets import PAGE_PREFIX, UNKNOWN_HERE, Machine, Span, Used, Wanted
from serving.organization.requests import many, owner_of, whole_number
from serving.services import Services, services_of

router = APIRouter()

Json = dict[str, Any]

# Width in seconds, buckets on a page if none are asked for, and the most. Source: the openai package (2.54).
WIDTHS = {"1m": (60, 60, 1440), "1h": (3600, 24, 168), "1d": (86400, 7, 31)}
COST_WIDTHS = {"1d": (86400, 7, 180)}

COMPLETIONS: tuple[UsageKind, ...] = ("completions", "batch")
# What the API counts and nothing here does.
NOTHING = (
    "moderations",
    "images",
    "audio_speeches",
    "audio_transcriptions",
    "code_interpreter_sessions",
    "web_search_calls",
)

GROUPS = {
    "completions": ("project_id", "user_id", "api_key_id", "model", "batch", "service_tier"),
    "embeddings": ("project_id", "user_id", "api_key_id", "model"),
    "file_search_calls": ("project_id", "user_id", "api_key_id", "vector_store_id"),
    "vector_stores": ("project_id",),
    "costs": ("project_id", "line_item", "api_key_id"),
}


@router.get("/v1/organization/usage/completions")
def completions(request: Request) -> Json:
    owner_of(request)
    kinds: tuple[UsageKind, ...] = COMPLETIONS
    if (batch := request.query_params.get("batch")) is not None:
        kinds = ("batch",) if _true(batch, "batch") else ("completions",)
    return _usage(request, "completions", kinds, _completions)


@router.get("/v1/organization/usage/embeddings")
def embeddings(request: Request) -> Json:
    owner_of(request)
    return _usage(request, "embeddings", ("embeddings",), _embeddings)


@router.get("/v1/organization/usage/file_search_calls")
def file_search_calls(request: Request) -> Json:
    owner_of(request)
    return _usage(request, "file_search_calls", ("file_search",), _file_searches)


@router.get("/v1/organization/usage/vector_stores")
def vector_stores(request: Request) -> Json:
    """What they take now, in the bucket of this moment: what they took before was not kept."""
    services = services_of(request)
    owner_of(request)
    span, groups, now = _span(request, WIDTHS), _groups(request, "vector_stores"), int(time.time())
    at = now - now % span.width
    sizes = buckets.stored_bytes(services.state, services.settings.place, many(request, "project_ids"))
    whole = [(None, sum(sizes.values()))]
    results = [
        {"object": "organization.usage.vector_stores.result", "usage_bytes": size, "project_id": project_id}
        for project_id, size in (sorted(sizes.items()) if groups else whole)
    ]
    return span.as_page({at: results} if span.start <= now < span.end + 1 else {})


@router.get("/v1/organization/usage/{kind}")
def usage_of_nothing(request: Request, kind: str) -> Json:
    owner_of(request)
    if kind not in NOTHING:
        raise NotFoundError(f"Invalid URL ({request.method} {request.url.path})")
    return _span(request, WIDTHS).as_page({})


@router.get("/v1/organization/costs")
def costs(request: Request) -> Json:
    """What the machine cost, by the price of its hour in the settings. See docs/keys.md for what that means."""
    services = services_of(request)
    owner_of(request)
    span, now = _span(request, COST_WIDTHS), int(time.time())
    wanted = Wanted(
        ("completions", "batch", "embeddings"),
        _groups(request, "costs"),
        many(request, "project_ids"),
        many(request, "api_key_ids"),
    )
    machine = Machine(services.settings.cost.machine_usd_per_hour, _set_up_at(services))
    return span.as_page(buckets.costs(services.state, span, wanted, machine, now))


def _usage(request: Request, name: str, kinds: Sequence[UsageKind], show: Any) -> Json:
    services = services_of(request)
    span, groups = _span(request, WIDTHS), _groups(request, name)
    if many(request, "user_ids"):  # nobody is one
        return span.as_page({})
    wanted = Wanted(
        kinds,
        groups,
        many(request, "project_ids"),
        many(request, "api_key_ids"),
        many(request, "models") + many(request, "vector_store_ids"),
    )
    found = buckets.used(services.state, span, wanted)
    blank = dict.fromkeys(GROUPS[name])
    return span.as_page(buckets.by_bucket((one.bucket, {**blank, **one.group, **show(one)}) for one in found))


def _completions(one: Used) -> Json:
    counts = one.counts
    return {
        "object": "organization.usage.completions.result",
        "num_model_requests": counts.requests,
        "input_tokens": counts.input_tokens,
        "input_cached_tokens": counts.cached_tokens,
        "input_uncached_tokens": counts.input_tokens - counts.cached_tokens,
        "output_tokens": counts.output_tokens,
        "input_audio_tokens": 0,
        "output_audio_tokens": 0,
    }


def _embeddings(one: Used) -> Json:
    return {
        "object": "organization.usage.embeddings.result",
        "num_model_requests": one.counts.requests,
        "input_tokens": one.counts.input_tokens,
    }


def _file_searches(one: Used) -> Json:
    """`passages` is ours: how many were found."""
    return {
        "object": "organization.usage.file_searches.result",
        "num_requests": one.counts.requests,
        "passages": one.counts.passages,
    }


def _span(request: Request, widths: dict[str, tuple[int, int, int]]) -> Span:
    """Raises: InvalidInputError."""
    width_name = request.query_params.get("bucket_width", "1d")
    if width_name not in widths:
        raise InvalidInputError(
            f"bucket_width = {width_name[:20]!r}: expected {', '.join(widths)}", param="bucket_width"
        )
    width, usual, most = widths[width_name]
    start = whole_number(request, "start_time", at_least=0, at_most=2**40)
    if start is None:
        raise InvalidInputError("start_time is missing; expected Unix seconds", param="start_time")
    end = whole_number(request, "end_time", at_least=0, at_most=2**40)
    # Without an end, the minute of now is the last.
    end = int(time.time()) + 1 if end is None else end
    limit = whole_number(request, "limit", at_least=1, at_most=most) or usual
    page = request.query_params.get("page")
    if page is not None and not _is_page(page):
        raise InvalidInputError(f"page = {page[:40]!r}: expected the next_page of an answer", param="page")
    return Span(start, end, width, limit, page)


def _is_page(page: str) -> bool:
    rest = page.removeprefix(PAGE_PREFIX)
    return page.startswith(PAGE_PREFIX) and rest.isascii() and rest.isdigit() and len(rest) < 14


def _groups(request: Request, name: str) -> list[str]:
    """Raises: InvalidInputError."""
    groups = many(request, "group_by")
    for group in groups:
        if group not in GROUPS[name]:
            raise InvalidInputError(
                f"group_by = {group[:40]!r}: expected {', '.join(GROUPS[name])}", param="group_by"
            )
    return [group for group in groups if group not in UNKNOWN_HERE]


def _true(text: str, name: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidInputError(f"{name} = {text[:20]!r}: expected true or false", param=name)
    return text == "true"


def _set_up_at(services: Services) -> int:
    with services.state.reading() as session:
        return session.scalar(select(func.min(Project.created_at))) or 0
