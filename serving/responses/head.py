"""A response without its output: what was asked, as answers repeat it."""

from typing import Any

from local_llm.identifiers import now
from serving.responses.requests import CreateResponse

Json = dict[str, Any]


def head_of(response_id: str, asked: CreateResponse, model: str, *, stored: bool) -> Json:
    """`model` is the one that answers, whatever name asked for it."""
    reasoning, text = asked.reasoning, asked.text
    return {
        "id": response_id,
        "object": "response",
        "created_at": now(),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": {"effort": reasoning and reasoning.effort, "summary": reasoning and reasoning.summary},
        "safety_identifier": asked.safety_identifier,
        "service_tier": "default",
        "store": stored,
        "temperature": asked.temperature,
        "text": {"format": _format(asked), "verbosity": text and text.verbosity},
        "tool_choice": asked.tool_choice or "auto",
        "tools": asked.tools or [],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": asked.top_p,
        "truncation": asked.truncation or "disabled",
        "usage": None,
        "user": asked.user,
    }


def _format(asked: CreateResponse) -> Json:
    given = asked.text and asked.text.format
    return {"type": "text"} if not given else given.model_dump(by_alias=True, exclude_none=True)
