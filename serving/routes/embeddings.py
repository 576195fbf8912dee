"""/v1/embeddings: vectors of texts."""

from fastapi import APIRouter, Request, Response

from serving.bodies import read_json_object
from serving.embeddings import EMBEDDINGS, embed
from serving.services import caller_of, services_of
from serving.telemetry.record import record_of

router = APIRouter()


@router.post(EMBEDDINGS)
async def create_embeddings(request: Request) -> Response:
    services, caller = services_of(request), caller_of(request)
    body = await read_json_object(request, services.settings.server.max_body_bytes)
    services.limits.enter(caller)
    data = await embed(services, caller, body, record_of(request.scope))
    return Response(data, media_type="application/json")
