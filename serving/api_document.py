"""/openapi.json, complete: also what the routes read by hand, and what the relay answers without any route.

The types of the openai package are the schema of bodies and answers wherever it has them.
"""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from openai.types import CreateEmbeddingResponse, completion, completion_create_params
from openai.types.chat import ChatCompletion
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.fine_tuning import job_create_params
from pydantic import TypeAdapter

from serving.batches.requests import CreateBatch
from serving.embeddings import CreateEmbeddings
from serving.organization import requests as organization
from serving.responses.requests import CountTokens, CreateResponse
from serving.routes.chats import RateChat, UpdateChat
from serving.routes.profiles import ProfileBody
from serving.vector_stores import requests

Json = dict[str, Any]

REFERENCE = "#/components/schemas/{model}"

STORE = "/v1/vector_stores/{store_id}"
CHAT = "/v1/chat/completions/{completion_id}"
PROJECTS = "/v1/organization/projects"
PROJECT = PROJECTS + "/{project_id}"

# What is sent to each route that reads its body by itself.
BODIES: dict[tuple[str, str], Any] = {
    ("post", "/v1/chat/completions"): chat_create_params.CompletionCreateParamsNonStreaming,
    ("post", "/v1/completions"): completion_create_params.CompletionCreateParamsNonStreaming,
    ("post", "/v1/embeddings"): CreateEmbeddings,
    ("post", "/v1/fine_tuning/jobs"): job_create_params.JobCreateParams,
    ("post", "/v1/profiles"): ProfileBody,
    ("post", "/v1/vector_stores"): requests.CreateStore,
    ("post", STORE): requests.UpdateStore,
    ("post", f"{STORE}/search"): requests.Search,
    ("post", f"{STORE}/files"): requests.CreateFile,
    ("post", f"{STORE}/files/{{file_id}}"): requests.UpdateFile,
    ("post", f"{STORE}/file_batches"): requests.CreateFileBatch,
    ("post", "/v1/batches"): CreateBatch,
    ("post", "/v1/responses"): CreateResponse,
    ("post", "/v1/responses/input_tokens"): CountTokens,
    ("post", CHAT): UpdateChat,
    ("post", f"{CHAT}/rating"): RateChat,
    ("post", PROJECTS): organization.CreateProject,
    ("post", PROJECT): organization.UpdateProject,
    ("post", f"{PROJECT}/api_keys/{{key_id}}"): organization.UpdateKey,
    ("post", f"{PROJECT}/api_keys/{{key_id}}/rotate"): organization.RotateKey,
    ("post", f"{PROJECT}/service_accounts"): organization.CreateAccount,
    ("post", f"{PROJECT}/service_accounts/{{account_id}}"): organization.UpdateAccount,
    ("post", f"{PROJECT}/service_accounts/{{account_id}}/api_keys"): organization.CreateKey,
    ("post", "/v1/organization/admin_api_keys"): organization.CreateAdminKey,
}

ANSWERS: dict[tuple[str, str], Any] = {
    ("post", "/v1/chat/completions"): ChatCompletion,
    ("post", "/v1/completions"): completion.Completion,
    ("post", "/v1/embeddings"): CreateEmbeddingResponse,
}

# The relay's, which no router knows.
RELAYED = {
    "/v1/chat/completions": "Answer a chat, with what the model's profile retrieves; `stream` for events.",
    "/v1/completions": "Continue a text; `stream` for events.",
}

UPLOAD: Json = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": ["assistants", "batch", "evals", "fine-tune", "user_data", "vision"]},
    },
}

ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

OPEN = ("/health", "/ready")  # to whoever reaches the address


def install(control: FastAPI) -> None:
    """Has the application answer /openapi.json with all of it, made when it is first asked for."""
    control.openapi = _once(control.openapi)  # type: ignore[method-assign]


def _once(written: Callable[[], Json]) -> Callable[[], Json]:
    made: list[Json] = []

    def document() -> Json:
        if not made:
            made.append(_complete(written()))
        return made[0]

    return document


def _complete(document: Json) -> Json:
    components = document.setdefault("components", {})
    schemas: Json = components.setdefault("schemas", {})
    schemas["Error"] = ERROR
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, summary in RELAYED.items():
        beside: Json = document["paths"].setdefault(path, {})  # a GET lists what was kept
        beside["post"] = {"summary": summary, "responses": {"200": {"description": "The answer"}}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete_operation(operation, path, (method, path), schemas)
    return document


def _complete_operation(operation: Json, path: str, place: tuple[str, str], schemas: Json) -> None:
    if place in BODIES:
        operation["requestBody"] = _content("application/json", _schema(BODIES[place], schemas), required=True)
    if place == ("post", "/v1/files"):
        operation["requestBody"] = _content("multipart/form-data", UPLOAD, required=True)
    if place in ANSWERS:
        operation["responses"]["200"] |= _content("application/json", _schema(ANSWERS[place], schemas))
    if path in RELAYED:
        operation["responses"]["200"]["content"]["text/event-stream"] = {}
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own: ours is the envelope
    error = _content("application/json", {"$ref": REFERENCE.format(model="Error")})
    responses["default"] = {"description": "An error", **error}
    if path not in OPEN:
        operation["security"] = [{"key": []}, {}]  # without any on a box where none was created


def _content(kind: str, schema: Json, **more: Any) -> Json:
    return {"content": {kind: {"schema": schema}}, **more}


def _schema(kind: Any, schemas: Json) -> Json:
    """What `kind` is named after, its parts put beside."""
    schema = TypeAdapter(kind).json_schema(ref_template=REFERENCE)
    schemas.update(schema.pop("$defs", {}))
    name = kind.__name__
    schemas[name] = schema
    return {"$ref": REFERENCE.format(model=name)}
