"""/health: the gateway runs. /ready: a chat would be served."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from local_llm.device import training_job
from serving.services import services_of

router = APIRouter()


@router.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """200 once the engine answers and, so that profiles can retrieve, the index server does.

    Its status is "draining" from when the server is told to stop, and "training" while the engine is stopped for a
    job (gpu.sharing = "stop").
    """
    services = services_of(request)
    if services.draining:
        return JSONResponse({"status": "draining"}, status_code=503)
    parts = {"engine": await services.engine.ready(), "index": await services.index.ready()}
    status = {name: "up" if up else "starting" for name, up in parts.items()}
    if all(parts.values()):
        return JSONResponse({"status": "ready", **status})
    job = training_job(services.settings)
    if job is not None and not parts["engine"]:
        status |= {"status": "training", "engine": f"stopped while {job} trains"}
    return JSONResponse({"status": "starting", **status}, status_code=503, headers={"retry-after": "2"})
