"""Embeddings as the API has them: vectors of texts, from an encoder of the model store, by the index server."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from index.interface import Embeddings
from local_llm.errors import InvalidInputError, ModelNotFoundError
from local_llm.models import ModelStore
from local_llm.permissions import Caller
from serving.bodies import dump_json
from serving.services import Services
from serving.telemetry.record import Record
from serving.vector_stores.requests import Body, Identifier, read

EMBEDDINGS = "/v1/embeddings"

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


async def embed(
    services: Services, caller: Caller, body: dict[str, Any], record: Record | None = None, *, batch: bool = False
) -> bytes:
    """The answer to a body of /v1/embeddings, as JSON. `record`: of the request, where there is one.

    Raises: RequestValidationError, InvalidInputError, ModelNotFoundError, UnavailableError.
    """
    asked = read(CreateEmbeddings, body)
    model = services.settings.embedding_aliases.get(asked.model, asked.model)
    if not caller.may_name(asked.model, model):
        raise ModelNotFoundError(
            f"The model `{asked.model:.160}` does not exist or you do not have access to it.", param="model"
        )
    found = await services.index.embed(caller, inputs_of(asked.input), model=model, kind=asked.input_type)
    services.usage.count(caller, model, "embeddings", input_tokens=found.tokens)
    services.limits.spent(caller, found.tokens, batch=batch)
    services.observer.embedded(record, found.model, found.tokens)
    dimension = len(found.vectors[0])
    if asked.dimensions not in (None, dimension):
        raise InvalidInputError(
            f"dimensions = {asked.dimensions}: {model} makes vectors of {dimension} numbers, and no others",
            param="dimensions",
        )
    return dump_json(_as_json(found, asked.encoding_format))


def refuse_unknown_encoder(services: Services, caller: Caller, name: str) -> None:
    """Raises: ModelNotFoundError."""
    model = services.settings.embedding_aliases.get(name, name)
    found = ModelStore(services.settings.place.models).find(model)
    if found is None or found.manifest.kind != "encoder" or not caller.may_name(name, model):
        raise ModelNotFoundError(f"there is no encoder {model!r:.80}", hint="local-llm models list", param="model")


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
