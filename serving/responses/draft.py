"""A response as it is being written: pieces of a chat in, events of /v1/responses out.

An answer that is not streamed goes the same way as one large piece, so that both are the same response.
"""

import copy
from collections.abc import Sequence
from typing import Any

from local_llm.errors import LocalLLMError, RateLimitError
from local_llm.identifiers import now
from serving.answering.events import TokenUsage
from serving.responses.written import Events, FileSearch, FunctionCall, Message, Reasoning, Written

Json = dict[str, Any]

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Draft:
    """`head` is a response without output. begin(), searched() if anything was, feed() each piece, then finish() or
    fail(). Every event is numbered."""

    def __init__(self, head: Json):
        self._head = head
        self._number = 0
        self._written: list[Written] = []
        self._reasoning: Reasoning | None = None
        self._message: Message | None = None
        self._calls: dict[int, FunctionCall] = {}
        self.finish_reason: str | None = None

    def begin(self) -> Events:
        return self._numbered(
            [{"type": f"response.{step}", "response": self._response()} for step in ("created", "in_progress")]
        )

    def searched(self, query: str, results: list[Json] | None) -> Events:
        search = FileSearch(len(self._written), query, results)
        return self._numbered([*self._open(search), *search.end("completed")])

    def feed(self, choice: Json) -> Events:
        """A choice of a whole chat or of a chunk of one."""
        piece = choice.get("delta") or choice.get("message") or {}
        events: Events = []
        if piece.get("reasoning"):
            events += self._reason(piece["reasoning"])
        if piece.get("content"):
            events += self._say(piece["content"], _logprobs(choice))
        for at, call in enumerate(piece.get("tool_calls") or ()):
            events += self._call(call.get("index", at), call)
        if piece.get("annotations") and self._message is not None:
            events += self._message.annotate(_annotations(piece))
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        return self._numbered(events)

    def finish(self, usage: TokenUsage) -> tuple[Json, Events]:
        """The response, and the events that end it."""
        reason = INCOMPLETE.get(self.finish_reason or "")
        status = "incomplete" if reason else "completed"
        events: Events = []
        if self._message is None and not self._calls:
            events += self._say("", [])
        events += self._close(status)
        self._head |= {
            "status": status,
            "completed_at": None if reason else now(),
            "incomplete_details": {"reason": reason} if reason else None,
            "usage": _usage(usage),
        }
        response = self._response()
        return response, self._numbered([*events, {"type": f"response.{status}", "response": response}])

    def fail(self, error: LocalLLMError) -> Events:
        code = "rate_limit_exceeded" if isinstance(error, RateLimitError) else "server_error"
        message = error.envelope()["error"]["message"]
        self._close("incomplete")
        self._head |= {"status": "failed", "completed_at": None, "error": {"code": code, "message": message}}
        return self._numbered([{"type": "response.failed", "response": self._response()}])

    def _response(self) -> Json:
        return {**self._head, "output": [copy.deepcopy(written.item) for written in self._written]}

    def _reason(self, text: str) -> Events:
        events: Events = []
        if self._reasoning is None:
            self._reasoning = Reasoning(len(self._written))
            events += self._open(self._reasoning)
        return [*events, *self._reasoning.add(text)]

    def _say(self, text: str, logprobs: Sequence[Json]) -> Events:
        events: Events = []
        if self._message is None:
            self._message = Message(len(self._written))
            events += self._open(self._message)
        return [*events, *self._message.add(text, logprobs)]

    def _call(self, index: int, call: Json) -> Events:
        function, events = call.get("function") or {}, []
        if index not in self._calls:
            self._calls[index] = FunctionCall(len(self._written), call["id"], function["name"])
            events += self._open(self._calls[index])
        arguments = function.get("arguments")
        return [*events, *(self._calls[index].add(arguments) if arguments else ())]

    def _open(self, written: Written) -> Events:
        """Reasoning ends where anything else begins; message and calls stay open: their pieces may alternate."""
        events: Events = []
        if self._reasoning is not None and self._reasoning is not written:
            events += self._reasoning.end("completed")
            self._reasoning = None
        self._written.append(written)
        return [*events, *written.begin()]

    def _close(self, status: str) -> Events:
        """Only the last item is what was cut off, if anything was."""
        still_open = [one for one in self._written if one.item["status"] == "in_progress"]
        events: Events = []
        for one in still_open:
            events += one.end(status if one is still_open[-1] else "completed")
        return events

    def _numbered(self, events: Events) -> Events:
        for event in events:
            event["sequence_number"] = self._number
            self._number += 1
        return events


def _annotations(piece: Json) -> list[Json]:
    """The citations of a chat as those of files, each with its place in the text. `number` is the n of `[n]`."""
    cited = {citation["url"]: citation for citation in piece["citations"]}
    annotations = []
    for annotation in piece["annotations"]:
        place = annotation["url_citation"]
        citation = dict(cited[place["url"]])
        annotations.append(
            {
                **citation,
                "type": "file_citation",
                "file_id": citation["file_id"] or citation["document_id"],
                "filename": citation["document"],
                "index": place["start_index"],
                "number": citation["index"],
            }
        )
    return annotations


def _logprobs(choice: Json) -> list[Json]:
    found = (choice.get("logprobs") or {}).get("content") or []
    return [
        {**_token(one), "top_logprobs": [_token(other) for other in one.get("top_logprobs") or ()]} for one in found
    ]


def _token(one: Json) -> Json:
    return {"token": one["token"], "logprob": one["logprob"], "bytes": one.get("bytes") or []}


def _usage(usage: TokenUsage) -> Json:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
