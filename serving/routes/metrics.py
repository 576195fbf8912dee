"""/metrics, for Prometheus. It concerns the whole box: an admin of one project may not read it."""

from fastapi import APIRouter, Request, Response

from local_llm.errors import AuthenticationError, ForbiddenError
from serving.access import refuse_strange_pages
from serving.preflight import is_loopback
from serving.services import Services, caller_of, services_of
from serving.telemetry import exposition

router = APIRouter()

# A proxy on this machine speaks for others.
FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Our numbers, and behind them the engine's own under their own names. With the engine down: ours alone."""
    services = services_of(request)
    _require_reader(request, services)
    engine = await services.engine.metrics()
    up = {"engine": bool(engine), "index": await services.index.ready()}
    ours = exposition.write(
        services.observer.metrics,
        await services.siblings.snapshots(),
        await exposition.behind(services.state, up),
    )
    return Response(ours + engine, media_type=exposition.CONTENT_TYPE)


def _require_reader(request: Request, services: Services) -> None:
    """Raises: AuthenticationError, ForbiddenError."""
    readers = services.settings.telemetry.metrics
    if readers == "anybody":
        return
    if "authorization" not in request.headers and readers == "loopback" and _is_local(request):
        headers = request.headers
        refuse_strange_pages(headers.get("host", "").encode("latin-1"), headers.get("origin", "").encode("latin-1"))
        return
    try:
        caller = caller_of(request)
    except AuthenticationError as error:
        raise AuthenticationError(error.message, hint="an owner's key, or the setting telemetry.metrics") from None
    if not caller.owns:
        raise ForbiddenError("the metrics are for owners: they concern everybody's")


def _is_local(request: Request) -> bool:
    if any(name in request.headers for name in FORWARDED):
        return False
    return request.client is not None and is_loopback(request.client.host)
