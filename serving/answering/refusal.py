"""The refusal as an answer of its own, where nothing was found to answer from: no model is asked.

It looks as the engine's answers do, whole or as events, so that all that reads those reads this too.
"""

from typing import Any

from local_llm.identifiers import now
from serving.answering.events import END
from serving.answering.prepare import Prepared
from serving.bodies import dump_json

_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class Refusal:
    def __init__(self, prepared: Prepared):
        self._prepared = prepared
        self._sent = False

    async def read(self) -> bytes:
        message = {"role": "assistant", "content": self._prepared.refusal}
        choices = [{"index": index, "message": message, "finish_reason": "stop"} for index in self._choices()]
        return dump_json(self._object("chat.completion", choices) | {"usage": _USAGE})

    async def readany(self) -> bytes:
        """All events of the stream at once, then nothing more."""
        if self._sent:
            return b""
        self._sent = True
        delta = {"role": "assistant", "content": self._prepared.refusal}
        objects = [self._chunk([{"index": index, "delta": delta}]) for index in self._choices()]
        objects += [
            self._chunk([{"index": index, "delta": {}, "finish_reason": "stop"}]) for index in self._choices()
        ]
        objects.append(self._chunk([]) | {"usage": _USAGE})
        return b"".join(b"data: " + dump_json(one) + END for one in objects) + b"data: [DONE]" + END

    def _choices(self) -> range:
        return range(self._prepared.wanted)

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._object("chat.completion.chunk", choices)

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        question = self._prepared.question
        return {
            "id": f"chatcmpl-{question.request_id}",
            "object": kind,
            "created": now(),
            "model": self._prepared.target.model,
            "choices": [{"logprobs": None, "finish_reason": None, **choice} for choice in choices],
        }
