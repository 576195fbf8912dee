"""/v1/responses: answers with tools and searches, streamed or whole, and those that are kept."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from local_llm.audit import SEARCHED, Seen
from local_llm.errors import InvalidInputError
from local_llm.permissions import Caller
from serving.answering.prepare import Prepared
from serving.bodies import read_json_object
from serving.responses import listing
from serving.responses.asking import prepared_for
from serving.responses.reply import Reply
from serving.responses.requests import CountTokens, CreateResponse, read_request
from serving.services import Services, caller_of, note, services_of

router = APIRouter()

Json = dict[str, Any]


@router.post("/v1/responses", response_model=None)
async def create_response(request: Request) -> Reply:
    services, caller = services_of(request), caller_of(request)
    asked = read_request(CreateResponse, await _body(request, services))
    return Reply(services, caller, asked, _url(request))


@router.post("/v1/responses/input_tokens")
async def count_input_tokens(request: Request) -> Json:
    """Of the prompt as the engine would read it: with the passages that a search would put into it."""
    services, caller = services_of(request), caller_of(request)
    asked = read_request(CountTokens, await _body(request, services))
    prepared, _, _ = await prepared_for(services, caller, asked, _url(request))
    _note_search(services, caller, prepared)
    count = await services.prompt_tokens.exactly(prepared.body)
    if count is None:
        raise InvalidInputError("the engine cannot count the tokens of this request")
    return {"object": "response.input_tokens", "input_tokens": count}


@router.get("/v1/responses/{response_id}")
def retrieve_response(request: Request, response_id: str, stream: bool = False) -> Json:
    if stream:
        raise InvalidInputError(
            "only responses that are made in the background can be streamed again, and none are here",
            param="stream",
        )
    row = services_of(request).responses.get(caller_of(request), response_id)
    return listing.shown(row, _include(request))


@router.delete("/v1/responses/{response_id}")
async def delete_response(request: Request, response_id: str) -> Json:
    services, caller = services_of(request), caller_of(request)
    await run_in_threadpool(services.responses.delete, caller, response_id)
    note(request, caller, "response.deleted", response_id)
    return {"id": response_id, "object": "response", "deleted": True}


@router.post("/v1/responses/{response_id}/cancel")
def cancel_response(request: Request, response_id: str) -> Json:
    services_of(request).responses.get(caller_of(request), response_id)
    raise InvalidInputError(
        "Cannot cancel a synchronous response.",
        hint="close the connection while it is answered",
        param="response_id",
    )


@router.get("/v1/responses/{response_id}/input_items")
def list_input_items(
    request: Request,
    response_id: str,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> Json:
    row = services_of(request).responses.get(caller_of(request), response_id)
    return listing.page_of(row, listing.ItemQuery(after, limit, order))


def _note_search(services: Services, caller: Caller, prepared: Prepared) -> None:
    """Of a count: that tells how long the passages are, which is something of what they hold."""
    if prepared.retrieved:
        searched, model = ", ".join(sorted(set(prepared.searched))) or None, prepared.question.body.get("model")
        seen = [Seen(hit.document_id, hit.version) for hit in prepared.hits]
        services.audit.answered(caller, model, searched, seen, question=prepared.query, action=SEARCHED)


def _include(request: Request) -> list[str]:
    return [*request.query_params.getlist("include[]"), *request.query_params.getlist("include")]


def _url(request: Request) -> str:
    return str(request.base_url).rstrip("/")


async def _body(request: Request, services: Services) -> Json:
    return await read_json_object(request, services.settings.server.max_body_bytes)
