"""The tools of a request: functions, which its client runs, and file_search, which is done here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from local_llm.errors import InvalidInputError
from local_llm.profiles import DEFAULT_K
from serving.answering.retrieval import Retrieval
from serving.responses.requests import LONGEST_NAME, read_part
from serving.vector_stores.requests import MOST_RESULTS, Body, Identifier, RankingOptions

FUNCTION, FILE_SEARCH = "function", "file_search"
# Ours: what bounds the work of one request.
MOST_STORES = 16

Json = dict[str, Any]


class FunctionTool(Body):
    type: Literal["function"]
    name: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    parameters: Json | None = None
    strict: bool | None = None
    description: str | None = None

    def as_chat(self) -> Json:
        return {"type": FUNCTION, FUNCTION: self.model_dump(exclude={"type"}, exclude_none=True)}


class FileSearchTool(Body):
    type: Literal["file_search"]
    vector_store_ids: Annotated[list[Identifier], Field(min_length=1, max_length=MOST_STORES)]
    max_num_results: Annotated[int, Field(ge=1, le=MOST_RESULTS)] | None = None
    filters: Json | None = None
    ranking_options: RankingOptions | None = None

    def retrieval(self) -> Retrieval:
        options = self.ranking_options or RankingOptions()
        return Retrieval(
            collections=tuple(dict.fromkeys(self.vector_store_ids)),
            k=self.max_num_results or DEFAULT_K,
            filters=self.filters,
            minimum_score=options.score_threshold,
            reranked=options.ranker != "none",
            # As the hosted tool: a model may answer without what it searched. Profiles say where it must not.
            only_from_context=False,
        )


@dataclass(frozen=True)
class Tools:
    """What a model may call and how, in the words of a chat, and what is searched before it is asked."""

    functions: tuple[Json, ...] = ()
    choice: str | Json | None = None
    retrieval: Retrieval | None = None


def tools_of(given: Sequence[Json] | None, choice: str | Json | None) -> Tools:
    """Raises: InvalidInputError, RequestValidationError."""
    tools = [_read(tool, at) for at, tool in enumerate(given or ())]
    searches = [tool for tool in tools if isinstance(tool, FileSearchTool)]
    if len(searches) > 1:
        raise InvalidInputError(
            "tools: file_search stands there twice", hint="name all stores in one", param="tools"
        )
    functions = [tool for tool in tools if isinstance(tool, FunctionTool)]
    if isinstance(choice, dict):
        return _chosen(functions, searches, choice)
    if choice not in (None, "none", "auto", "required"):
        raise _wrong_choice(choice)
    if choice == "none":  # the model is still told of its functions, as in chats; nothing is searched
        return _tools(functions, "none", [])
    return _tools(functions, choice, searches)


def _read(tool: Json, at: int) -> FunctionTool | FileSearchTool:
    kind = tool.get("type")
    if kind == FUNCTION:
        return read_part(FunctionTool, tool, "tools", at)
    if kind == FILE_SEARCH:
        return read_part(FileSearchTool, tool, "tools", at)
    raise InvalidInputError(
        f"tools[{at}]: there is no tool {kind!r:.60} here; expected function or file_search",
        param=f"tools[{at}].type",
    )


def _chosen(functions: list[FunctionTool], searches: list[FileSearchTool], choice: Json) -> Tools:
    """One tool, or some of those that there are (`allowed_tools`)."""
    match choice.get("type"):
        case "function":
            name = choice.get("name")
            if name not in [tool.name for tool in functions]:
                raise InvalidInputError(f"tool_choice: no tool is named {name!r:.80}", param="tool_choice")
            return _tools(functions, {"type": FUNCTION, FUNCTION: {"name": name}}, [])
        case "file_search" if searches:
            return _tools([], None, searches)
        case "allowed_tools" if choice.get("mode") in ("auto", "required"):
            given = choice.get("tools")
            allowed = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
            names = [one.get("name") for one in allowed if one.get("type") == FUNCTION]
            kept = [tool for tool in functions if tool.name in names]
            searching = any(one.get("type") == FILE_SEARCH for one in allowed)
            return _tools(kept, choice["mode"], searches if searching else [])
    raise _wrong_choice(choice)


def _tools(functions: list[FunctionTool], choice: str | Json | None, searches: list[FileSearchTool]) -> Tools:
    retrieval = searches[0].retrieval() if searches else None
    if not functions:
        return Tools(retrieval=retrieval)
    # A chat's own default depends on the engine.
    return Tools(tuple(tool.as_chat() for tool in functions), choice or "auto", retrieval)


def _wrong_choice(choice: Any) -> InvalidInputError:
    return InvalidInputError(
        f"tool_choice: {choice!r:.80}; expected none, auto, required, one of the tools (function with its name, "
        "file_search) or allowed_tools",
        param="tool_choice",
    )
