"""The body of POST /v1/responses, field by field. What the API does not know is refused, and so is what
it knows but cannot be had here."""

from typing import Annotated, Any, Literal, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from local_llm.errors import InvalidInputError
from local_llm.profiles import BASE
from serving.vector_stores.requests import Body, Metadata

# Source: the reference of the API.
MOST_LOGPROBS = 20
LONGEST_NAME = 64

Json = dict[str, Any]

RESULTS, LOGPROBS = "file_search_call.results", "message.output_text.logprobs"
# Beyond those two there is nothing to include, or it is always there: reasoning is told openly, so clients that ask
# for it encrypted, as those that keep nothing here do, need no more than what they get.
Includable = Literal[
    "file_search_call.results",
    "message.output_text.logprobs",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
]

NOT_HERE = {
    "conversation": "send previous_response_id, or all that was said",
    "prompt": "send instructions and input",
    "context_management": 'send truncation="auto"',
    "moderation": "there is no such model here",
}


class UnknownParameterError(InvalidInputError):
    code = "unknown_parameter"


class UnsupportedParameterError(InvalidInputError):
    code = "unsupported_parameter"


class JsonSchemaFormat(Body):
    type: Literal["json_schema"]
    name: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    schema_: Annotated[Json, Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class PlainFormat(Body):
    type: Literal["text", "json_object"] = "text"


class TextOptions(Body):
    format: Annotated[JsonSchemaFormat | PlainFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningOptions(Body):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class StreamOptions(Body):
    """Nothing is added to hide the lengths of chunks."""

    include_obfuscation: bool | None = None


class AskResponse(Body):
    """What both a response and a count of its input tokens are made from."""

    model: Annotated[str, Field(min_length=1)]
    input: Any = None
    instructions: str | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    previous_response_id: str | None = None
    truncation: Literal["auto", "disabled"] | None = None


class CountTokens(AskResponse):
    model: Annotated[str, Field(min_length=1)] = BASE
    personality: str | None = None


class CreateResponse(AskResponse):
    """`prompt_cache_…`, `safety_identifier`, `service_tier` and `user` change nothing here."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    include: list[Includable] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    metadata: Metadata | None = None
    background: Literal[False] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Json | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    user: str | None = None

    def includes(self, what: str) -> bool:
        return what in (self.include or ())


A = TypeVar("A", bound=AskResponse)
M = TypeVar("M", bound=BaseModel)


def read_request(kind: type[A], body: Json) -> A:
    """Raises: UnknownParameterError, UnsupportedParameterError, RequestValidationError."""
    for name, instead in NOT_HERE.items():
        if body.get(name) is not None:
            raise UnsupportedParameterError(f"{name} is not supported", hint=instead, param=name)
    if body.get("background"):
        raise UnsupportedParameterError(
            "background is not supported", hint="send stream=true, or a batch to /v1/batches", param="background"
        )
    known = {field.alias or name for name, field in kind.model_fields.items()} | NOT_HERE.keys()
    for name in body:
        if name not in known:
            raise UnknownParameterError(f"Unknown parameter: '{name:.80}'.", param=name[:80])
    return read_part(kind, {name: value for name, value in body.items() if name not in NOT_HERE})


def read_part(kind: type[M], value: Any, *where: str | int) -> M:
    """A part of the body, which stands `where` in it. Raises: RequestValidationError with all wrong fields."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        wrong = [{**one, "loc": ("body", *where, *one["loc"])} for one in error.errors(include_context=False)]
        raise RequestValidationError(wrong) from None
