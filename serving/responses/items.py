"""Input items: read strictly, given ids, and kept as the API lists them."""

import json
from collections.abc import Iterable
from typing import Any

from local_llm.errors import InvalidInputError
from local_llm.identifiers import new_id
from serving.sizes import characters_of

USER, ASSISTANT = "user", "assistant"
ROLES = (USER, ASSISTANT, "system", "developer")
DATA_URL = "data:"
LONGEST_ID = 256
# No model here writes as much.
LONGEST_REASONING_CHARACTERS = 1 << 20
MOST_ANNOTATIONS_CHARACTERS = 1 << 18
MOST_QUERIES, LONGEST_QUERY = 16, 4096

Json = dict[str, Any]


def items_of(given: Any) -> list[Json]:
    """The items of `input`: a string, or a list of them. Each with id, type and status.

    Raises: InvalidInputError naming what is wrong by its place.
    """
    if isinstance(given, str):
        return [_message({"role": USER, "content": given}, "input")]
    if not isinstance(given, list) or not given:
        raise InvalidInputError("input: expected a string or a list of one or more items", param="input")
    return [_item(item, f"input[{at}]") for at, item in enumerate(given)]


def check_calls(items: Iterable[Json]) -> None:
    """Each call of a function has its output behind it, and each output its call before it.

    Raises: InvalidInputError.
    """
    open_calls: dict[str, None] = {}
    answered: set[str] = set()
    for item in items:
        call_id = item.get("call_id")
        if item["type"] == "function_call":
            open_calls[str(call_id)] = None
        elif item["type"] == "function_call_output":
            if call_id not in open_calls and call_id not in answered:
                raise InvalidInputError(
                    f"No tool call found for function call output with call_id {call_id:.80}.", param="input"
                )
            open_calls.pop(str(call_id), None)
            answered.add(str(call_id))
    if open_calls:
        raise InvalidInputError(
            f"No tool output found for function call {next(iter(open_calls)):.80}.",
            hint="send an item of the type function_call_output with this call_id",
            param="input",
        )


def _item(item: Any, where: str) -> Json:
    if not isinstance(item, dict):
        raise InvalidInputError(f"{where}: expected an object", param=where)
    if not isinstance(item.get("id"), str | None) or len(item.get("id") or "") > LONGEST_ID:
        raise InvalidInputError(
            f"{where}.id: expected a string of at most {LONGEST_ID} characters", param=f"{where}.id"
        )
    match item.get("type", "message"):
        case "message":
            return _message(item, where)
        case "function_call":
            return _function_call(item, where)
        case "function_call_output":
            return _function_call_output(item, where)
        case "reasoning":
            return _reasoning(item, where)
        case "file_search_call":
            return _file_search_call(item, where)
        case "item_reference":
            raise InvalidInputError(
                f"{where}: items cannot be named by their ids here",
                hint="send the item itself, or previous_response_id",
                param=where,
            )
        case other:
            raise InvalidInputError(
                f"{where}.type: {other!r:.60}; expected message, function_call, function_call_output, reasoning or "
                "file_search_call",
                param=f"{where}.type",
            )


def _message(item: Json, where: str) -> Json:
    role, content = item.get("role"), item.get("content")
    if role not in ROLES:
        raise InvalidInputError(f"{where}.role: {role!r:.60}; expected {', '.join(ROLES)}", param=f"{where}.role")
    if isinstance(content, str):
        content = [{"type": "input_text", "text": content}]
    elif not isinstance(content, list):
        raise InvalidInputError(f"{where}.content: expected a string or a list of parts", param=f"{where}.content")
    parts = [_part(part, role, f"{where}.content[{at}]") for at, part in enumerate(content)]
    return {
        "id": item.get("id") or new_id("msg_"),
        "type": "message",
        "status": "completed",
        "role": role,
        "content": parts,
    }


def _part(part: Any, role: str, where: str) -> Json:
    kind = part.get("type") if isinstance(part, dict) else None
    match kind:
        case "input_text" | "output_text":
            text = _text(part, "text", where)
            if role == ASSISTANT:
                given = part.get("annotations")
                annotations = given if isinstance(given, list) else []
                if characters_of(annotations, MOST_ANNOTATIONS_CHARACTERS) > MOST_ANNOTATIONS_CHARACTERS:
                    raise InvalidInputError(
                        f"{where}.annotations: expected at most {MOST_ANNOTATIONS_CHARACTERS} characters",
                        param=f"{where}.annotations",
                    )
                return {"type": "output_text", "text": text, "annotations": annotations}
            return {"type": "input_text", "text": text}
        case "refusal" if role == ASSISTANT:
            return {"type": "refusal", "refusal": _text(part, "refusal", where)}
        case "input_image" if role == USER:
            return _image(part, where)
    known = "output_text and refusal" if role == ASSISTANT else "input_text, and of users input_image"
    raise InvalidInputError(
        f"{where}.type: {kind!r:.60}; expected {known}",
        hint="files are read through a vector store and file_search" if kind == "input_file" else None,
        param=f"{where}.type",
    )


def _image(part: Json, where: str) -> Json:
    """An address would let a client have the engine look into the inner network."""
    address = part.get("image_url")
    if not isinstance(address, str) or not address.startswith(DATA_URL):
        raise InvalidInputError(f"{where}.image_url is accepted as a data: URL only", param=f"{where}.image_url")
    detail = part.get("detail") or "auto"
    if detail not in ("low", "high", "auto", "original"):
        raise InvalidInputError(
            f"{where}.detail: {detail!r:.60}; expected low, high, auto or original", param=f"{where}.detail"
        )
    return {"type": "input_image", "image_url": address, "detail": detail}


def _function_call(item: Json, where: str) -> Json:
    arguments = _text(item, "arguments", where)
    if not is_object(arguments):
        raise InvalidInputError(
            f"{where}.arguments: expected a JSON object as a string", param=f"{where}.arguments"
        )
    return {
        "id": item.get("id") or new_id("fc_"),
        "type": "function_call",
        "status": "completed",
        "call_id": _text(item, "call_id", where),
        "name": _text(item, "name", where),
        "arguments": arguments,
    }


def _function_call_output(item: Json, where: str) -> Json:
    output = item.get("output")
    if isinstance(output, list):
        output = [_part(part, "tool", f"{where}.output[{at}]") for at, part in enumerate(output)]
    else:
        output = _text(item, "output", where)
    return {
        "id": item.get("id") or new_id("fco_"),
        "type": "function_call_output",
        "status": "completed",
        "call_id": _text(item, "call_id", where),
        "output": output,
    }


def _reasoning(item: Json, where: str) -> Json:
    """No model here reads it again. Only what the API lists is kept."""
    return {
        "id": item.get("id") or new_id("rs_"),
        "type": "reasoning",
        "status": "completed",
        "summary": _texts(item, "summary", "summary_text", where),
        "content": _texts(item, "content", "reasoning_text", where),
    }


def _file_search_call(item: Json, where: str) -> Json:
    """Its results are left out: what was found then is not what may be seen now."""
    queries = item.get("queries") or []
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise InvalidInputError(f"{where}.queries: expected a list of strings", param=f"{where}.queries")
    return {
        "id": item.get("id") or new_id("fs_"),
        "type": "file_search_call",
        "status": "completed",
        "queries": [query[:LONGEST_QUERY] for query in queries[:MOST_QUERIES]],
        "results": None,
    }


def _texts(item: Json, name: str, kind: str, where: str) -> list[Json]:
    parts = item.get(name) or []
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise InvalidInputError(f"{where}.{name}: expected a list of parts", param=f"{where}.{name}")
    texts = [_text(part, "text", f"{where}.{name}[{at}]") for at, part in enumerate(parts)]
    if characters_of(texts) > LONGEST_REASONING_CHARACTERS:
        raise InvalidInputError(
            f"{where}.{name}: expected at most {LONGEST_REASONING_CHARACTERS} characters",
            hint="leave it out: no model here reads it again",
            param=f"{where}.{name}",
        )
    return [{"type": kind, "text": text} for text in texts]


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _text(value: Json, name: str, where: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise InvalidInputError(f"{where}.{name}: expected a string", param=f"{where}.{name}")
    return text
