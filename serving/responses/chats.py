"""Items as the messages of a chat, and a request as the body of one."""

from collections.abc import Iterable, Sequence
from typing import Any

from local_llm.errors import InvalidInputError
from serving.responses.items import ASSISTANT, is_object
from serving.responses.requests import LOGPROBS, AskResponse, CreateResponse, JsonSchemaFormat, TextOptions
from serving.responses.tools import Tools

Json = dict[str, Any]


def messages_of(instructions: str | None, items: Iterable[Json]) -> list[Json]:
    """What the assistant said and called in one turn is one message. Reasoning and searches are passed over."""
    messages: list[Json] = [] if instructions is None else [{"role": "system", "content": instructions}]
    calling = False  # whether the last message is open for another call
    for item in items:
        match item["type"]:
            case "message":
                # Templates of chats know no developers.
                role = "system" if item["role"] == "developer" else item["role"]
                messages.append({"role": role, "content": _content(item["content"])})
                calling = role == ASSISTANT
            case "function_call":
                if not calling:
                    messages.append({"role": ASSISTANT, "content": None})
                    calling = True
                messages[-1].setdefault("tool_calls", []).append(_call(item))
            case "function_call_output":
                output = item["output"] if isinstance(item["output"], str) else _content(item["output"])
                messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": output})
                calling = False
    return messages


def body_of(asked: AskResponse, messages: Sequence[Json], tools: Tools) -> Json:
    """The body of a chat."""
    text, effort = asked.text or TextOptions(), asked.reasoning and asked.reasoning.effort
    body: Json = {
        "model": asked.model,
        "messages": list(messages),
        "response_format": _format(text),
        "reasoning_effort": effort,
    }
    if tools.functions:
        body |= {"tools": list(tools.functions), "tool_choice": tools.choice}
        body["parallel_tool_calls"] = asked.parallel_tool_calls
    if isinstance(asked, CreateResponse):
        body |= {
            "stream": asked.stream,
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "max_completion_tokens": asked.max_output_tokens,
        }
        if asked.includes(LOGPROBS):
            body |= {"logprobs": True, "top_logprobs": asked.top_logprobs or 0}
    return {name: value for name, value in body.items() if value is not None}


def _content(parts: Sequence[Json]) -> str | list[Json]:
    """Text as a string, which every template takes; parts only where there are images."""
    if all(part["type"] != "input_image" for part in parts):
        return "\n".join(part["refusal"] if part["type"] == "refusal" else part["text"] for part in parts)
    return [
        {"type": "image_url", "image_url": {"url": part["image_url"]}}
        if part["type"] == "input_image"
        else {"type": "text", "text": part["text"]}
        for part in parts
    ]


def _call(item: Json) -> Json:
    if not is_object(item["arguments"]):  # of an answer that was cut off
        raise InvalidInputError(
            f"the arguments of the call {item['call_id']} are no JSON object",
            hint="go on from the response before it",
            param="previous_response_id",
        )
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _format(text: TextOptions) -> Json | None:
    if isinstance(text.format, JsonSchemaFormat):
        schema = text.format.model_dump(by_alias=True, exclude={"type"}, exclude_none=True)
        return {"type": "json_schema", "json_schema": schema}
    if text.format is not None and text.format.type == "json_object":
        return {"type": "json_object"}
    return None
