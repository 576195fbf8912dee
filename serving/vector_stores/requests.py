"""Bodies of /v1/vector_stores, field by field. What the API does not know is refused."""

from typing import Annotated, Any, Literal, Self, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from index.interface import Attachment, Ranking, Splitting

# Source: the reference of the API (metadata, attributes, file batches, search, expires_after).
MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512
MOST_FILES = 500
MOST_BATCH_FILES = 2000
MOST_RESULTS = 50
MOST_DAYS = 365
# Ours: what bounds the work of one request.
MOST_QUERIES = 16
MOST_PRINCIPALS = 100
LONGEST_TEXT = 512


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


B = TypeVar("B", bound=Body)


def read(kind: type[B], body: dict[str, Any]) -> B:
    """Raises: RequestValidationError, told with all wrong fields."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        wrong = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_context=False)]
        raise RequestValidationError(wrong) from None


def _check_pairs(pairs: dict[str, Any]) -> dict[str, Any]:
    if len(pairs) > MOST_PAIRS:
        raise ValueError(f"{len(pairs)} keys; expected at most {MOST_PAIRS}")
    for key, value in pairs.items():
        if not 0 < len(key) <= LONGEST_KEY:
            raise ValueError(f"the key {key[:80]!r} has {len(key)} characters; expected 1 to {LONGEST_KEY}")
        if isinstance(value, str) and len(value) > LONGEST_VALUE:
            raise ValueError(f"the value of {key!r} has {len(value)} characters; expected at most {LONGEST_VALUE}")
    return pairs


def _check_attributes(pairs: dict[str, Any]) -> dict[str, Any]:
    for key, value in pairs.items():
        if not isinstance(value, str | int | float):  # true and false are whole numbers to Python
            raise ValueError(f"the value of {key[:80]!r} is no text, number, true or false")
    return _check_pairs(pairs)


Metadata = Annotated[dict[str, str], AfterValidator(_check_pairs)]
Attributes = Annotated[dict[str, Any], AfterValidator(_check_attributes)]
Principal = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
Allow = Annotated[list[Principal], Field(min_length=1, max_length=MOST_PRINCIPALS)]
Name = Annotated[str, Field(max_length=LONGEST_TEXT)]
Identifier = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]


class ExpiresAfter(Body):
    anchor: Literal["last_active_at"]
    days: Annotated[int, Field(ge=1, le=MOST_DAYS)]


class StaticSizes(Body):
    max_chunk_size_tokens: int
    chunk_overlap_tokens: int


class ChunkingStrategy(Body):
    type: Literal["auto", "static"]
    static: StaticSizes | None = None

    @model_validator(mode="after")
    def _sizes_for_static(self) -> Self:
        if (self.type == "static") != (self.static is not None):
            raise ValueError("`static` holds the sizes for the type static, and for no other")
        return self

    def splitting(self) -> Splitting:
        if self.static is None:
            return Splitting()
        return Splitting(self.static.max_chunk_size_tokens, self.static.chunk_overlap_tokens)


def splitting_of(strategy: ChunkingStrategy | None) -> Splitting:
    return Splitting() if strategy is None else strategy.splitting()


class CreateStore(Body):
    """`description` is taken because clients send it; the API gives it back nowhere."""

    name: Name | None = None
    description: Name | None = None
    file_ids: Annotated[list[Identifier], Field(max_length=MOST_FILES)] | None = None
    chunking_strategy: ChunkingStrategy | None = None
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None

    def attachments(self) -> list[Attachment]:
        splitting = splitting_of(self.chunking_strategy)
        return [Attachment(file_id, splitting=splitting) for file_id in self.file_ids or ()]


class UpdateStore(Body):
    name: Name | None = None
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class CreateFile(Body):
    file_id: Identifier
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None
    allow: Allow | None = None

    def attachment(self) -> Attachment:
        allow = None if self.allow is None else tuple(self.allow)
        return Attachment(self.file_id, allow, self.attributes, splitting_of(self.chunking_strategy))


class UpdateFile(Body):
    attributes: Attributes | None = None
    allow: Allow | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("expected `attributes`, `allow` or both")
        return self


class CreateFileBatch(Body):
    file_ids: Annotated[list[Identifier], Field(min_length=1, max_length=MOST_BATCH_FILES)] | None = None
    files: Annotated[list[CreateFile], Field(min_length=1, max_length=MOST_BATCH_FILES)] | None = None
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None
    allow: Allow | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.file_ids is None) == (self.files is None):
            raise ValueError("expected either `file_ids` or `files`")
        shared = (self.attributes, self.chunking_strategy, self.allow)
        if self.files is not None and any(one is not None for one in shared):
            raise ValueError("with `files`, give attributes, chunking_strategy and allow with each of them")
        return self

    def attachments(self) -> list[Attachment]:
        if self.files is not None:
            return [one.attachment() for one in self.files]
        splitting = splitting_of(self.chunking_strategy)
        allow = None if self.allow is None else tuple(self.allow)
        return [Attachment(file_id, allow, self.attributes, splitting) for file_id in self.file_ids or ()]


class RankingOptions(Body):
    ranker: Literal["none", "auto", "default-2024-11-15"] = "auto"
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0


class Search(Body):
    query: str | Annotated[list[str], Field(min_length=1, max_length=MOST_QUERIES)]
    filters: dict[str, Any] | None = None
    max_num_results: Annotated[int, Field(ge=1, le=MOST_RESULTS)] = 10
    ranking_options: RankingOptions | None = None
    rewrite_query: bool | None = None

    @model_validator(mode="after")
    def _query_as_it_is(self) -> Self:
        if self.rewrite_query:
            raise ValueError("rewrite_query: queries are searched as they are here; expected false")
        return self

    @property
    def queries(self) -> list[str]:
        return [self.query] if isinstance(self.query, str) else self.query

    @property
    def threshold(self) -> float:
        return 0.0 if self.ranking_options is None else self.ranking_options.score_threshold

    def ranking(self, of_collection: Ranking) -> Ranking | None:
        """None: as the collection is set."""
        if self.ranking_options is None or self.ranking_options.ranker != "none":
            return None
        return Ranking(of_collection.lexical, None, of_collection.merged)
