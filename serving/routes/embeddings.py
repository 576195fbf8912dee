"""/v1/embeddings: vectors of texts, from an encoder of the model store, by the index server."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import Field

from index.interface import Embeddings
from local_llm.errors import InvalidInputError
from serving.bodies import dump_json, read_json_object
from serving.services import caller_of, services_of
from serving.telemetry.record import record_of
from serving.vector_stores.requests import Body, Identifier, read

router = APIRouter()

MOST_INPUTS = 2048  # Source: the reference of the API

Inputs = list[str] | list[list[int]]


class CreateEmbeddings(Body):
    """`input_type` is ours: encoders can read questions otherwise than documents."""

    model: Identifier
    input: Any
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None
    input_type: Literal["query", "document"] = "document"


@router.post("/v1/embeddings")
async def create_embeddings(request: Request) -> Response:
    services, caller = services_of(request), caller_of(request)
    asked = read(CreateEmbeddings, await read_json_object(request, services.settings.server.max_body_bytes))
    services.limits.enter(caller)
    model = services.settings.embedding_aliases.get(asked.model, asked.model)
    found = await services.index.embed(caller, inputs_of(asked.input), model=model, kind=asked.input_type)
    services.limits.spent(caller, found.tokens)
    services.observer.embedded(record_of(request.scope), found.model, found.tokens)
    dimension = len(found.vectors[0])
    if asked.dimensions not in (None, dimension):
        raise InvalidInputError(
            f"dimensions = {asked.dimensions}: {model} makes vectors of {dimension} numbers, and no others",
            param="dimensions",
        )
    return Response(dump_json(_as_json(found, asked.encoding_format)), media_type="application/json")


def inputs_of(value: Any) -> Inputs:
    """One text or several, or the token ids of one or several. Raises: InvalidInputError."""
    if isinstance(value, str) or _are_ids(value):
        value = [value]
    if not isinstance(value, list) or not value:
        raise InvalidInputError("input: expected a string, token ids, or a list of either", param="input")
    if not (all(isinstance(one, str) for one in value) or all(_are_ids(one) for one in value)):
        raise InvalidInputError("input: expected strings only, or lists of token ids only", param="input")
    if len(value) > MOST_INPUTS:
        raise InvalidInputError(f"input: {len(value)} inputs; expected at most {MOST_INPUTS}", param="input")
    return value


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


def _as_json(found: Embeddings, encoding_format: str) -> dict[str, Any]:
    """`truncated` is ours: how many inputs were longer than the encoder reads."""
    shown = _base64 if encoding_format == "base64" else list
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": at, "embedding": shown(vector)}
            for at, vector in enumerate(found.vectors)
        ],
        "model": found.model,
        "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
        "truncated": found.truncated,
    }


def _base64(vector: Sequence[float]) -> str:
    """float32, little-endian, as the API packs them."""
    return b64encode(np.asarray(vector, "<f4").tobytes()).decode()
