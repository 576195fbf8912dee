"""/health: the gateway runs. /ready: a chat would be served."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from local_llm.errors import UnavailableError
from serving.services import services_of

router = APIRouter()


@router.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """200 once the engine answers and, so that profiles can retrieve, the index server does.

    Its status is "draining" from when the server is told to stop, and "training" while the engine is stopped for a
    job (gpu.sharing = "stop"). Of engines elsewhere one is enough; "engines" tells of each, in the order of
    engine.urls. Answers may be a second old.
    """
    services = services_of(request)
    if services.draining:
        return JSONResponse({"status": "draining"}, status_code=503)
    seen = await services.readiness.look()
    engine, index_up = seen.engine, seen.index_up
    status: dict[str, Any] = {"engine": _word(engine.up), "index": _word(index_up)}
    if engine.each:
        status["engines"] = ["up" if up else "down" for up in engine.each]
    if engine.up and index_up:
        return JSONResponse({"status": "ready", **status})
    if engine.job is not None:
        status |= {"status": "training", "engine": f"stopped while {engine.job} trains"}
    seconds = engine.retry_after_seconds if not engine.up else UnavailableError.retry_after_seconds
    return JSONResponse({"status": "starting", **status}, status_code=503, headers={"retry-after": str(seconds)})


def _word(up: bool) -> str:
    return "up" if up else "starting"
