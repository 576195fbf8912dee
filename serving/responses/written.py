"""Items of an answer while they are written: what each adds, and the events that tell it."""

from collections.abc import Sequence
from typing import Any

from local_llm.identifiers import new_id

Json = dict[str, Any]
Events = list[Json]


class Written:
    """One item of the output. Events lack their numbers."""

    def __init__(self, output_index: int, item: Json):
        self.item = item
        self._place = {"item_id": item["id"], "output_index": output_index}
        self._output_index = output_index

    def begin(self) -> Events:
        return [self._item_event("response.output_item.added")]

    def end(self, status: str) -> Events:
        self.item["status"] = status
        return [self._item_event("response.output_item.done")]

    def _item_event(self, kind: str) -> Json:
        # Lists grow: what was told stays as it was.
        item = {name: list(value) if isinstance(value, list) else value for name, value in self.item.items()}
        return {"type": kind, "output_index": self._output_index, "item": item}

    def _event(self, kind: str, **fields: Any) -> Json:
        return {"type": kind, **self._place, **fields}


class Message(Written):
    def __init__(self, output_index: int):
        item = {
            "id": new_id("msg_"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        super().__init__(output_index, item)
        self._part: Json = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self._text: list[str] = []

    def begin(self) -> Events:
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return [*super().begin(), self._event("response.content_part.added", content_index=0, part=part)]

    def add(self, text: str, logprobs: Sequence[Json]) -> Events:
        self._text.append(text)
        self._part["logprobs"] += logprobs
        return [
            self._event(
                "response.output_text.delta", content_index=0, delta=text, logprobs=_without_bytes(logprobs)
            )
        ]

    def annotate(self, annotations: Sequence[Json]) -> Events:
        events = []
        for annotation in annotations:
            index = len(self._part["annotations"])
            self._part["annotations"].append(annotation)
            events.append(
                self._event(
                    "response.output_text.annotation.added",
                    content_index=0,
                    annotation_index=index,
                    annotation=annotation,
                )
            )
        return events

    def end(self, status: str) -> Events:
        text = self._part["text"] = "".join(self._text)
        self.item["content"] = [self._part]
        logprobs = _without_bytes(self._part["logprobs"])
        return [
            self._event("response.output_text.done", content_index=0, text=text, logprobs=logprobs),
            self._event("response.content_part.done", content_index=0, part=self._part),
            *super().end(status),
        ]


class Reasoning(Written):
    def __init__(self, output_index: int):
        item = {"id": new_id("rs_"), "type": "reasoning", "status": "in_progress", "summary": [], "content": []}
        super().__init__(output_index, item)
        self._text: list[str] = []

    def begin(self) -> Events:
        part = {"type": "reasoning_text", "text": ""}
        return [*super().begin(), self._event("response.content_part.added", content_index=0, part=part)]

    def add(self, text: str) -> Events:
        self._text.append(text)
        return [self._event("response.reasoning_text.delta", content_index=0, delta=text)]

    def end(self, status: str) -> Events:
        part = {"type": "reasoning_text", "text": "".join(self._text)}
        self.item["content"] = [part]
        return [
            self._event("response.reasoning_text.done", content_index=0, text=part["text"]),
            self._event("response.content_part.done", content_index=0, part=part),
            *super().end(status),
        ]


class FunctionCall(Written):
    def __init__(self, output_index: int, call_id: str, name: str):
        item = {
            "id": new_id("fc_"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            "arguments": "",
        }
        super().__init__(output_index, item)
        self._arguments: list[str] = []

    def add(self, arguments: str) -> Events:
        self._arguments.append(arguments)
        return [self._event("response.function_call_arguments.delta", delta=arguments)]

    def end(self, status: str) -> Events:
        arguments = self.item["arguments"] = "".join(self._arguments)
        done = self._event("response.function_call_arguments.done", name=self.item["name"], arguments=arguments)
        return [done, *super().end(status)]


class FileSearch(Written):
    """A search that was made before the model was asked."""

    def __init__(self, output_index: int, query: str, results: list[Json] | None):
        item = {
            "id": new_id("fs_"),
            "type": "file_search_call",
            "status": "in_progress",
            "queries": [query],
            "results": None,
        }
        super().__init__(output_index, item)
        self._results = results

    def begin(self) -> Events:
        steps = [self._event(f"response.file_search_call.{step}") for step in ("in_progress", "searching")]
        return [*super().begin(), *steps]

    def end(self, status: str) -> Events:
        self.item["results"] = self._results
        return [self._event("response.file_search_call.completed"), *super().end(status)]


def _without_bytes(logprobs: Sequence[Json]) -> list[Json]:
    """As events have them."""
    return [
        {
            "token": one["token"],
            "logprob": one["logprob"],
            "top_logprobs": [
                {"token": other["token"], "logprob": other["logprob"]} for other in one["top_logprobs"]
            ],
        }
        for one in logprobs
    ]
