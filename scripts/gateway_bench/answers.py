"""What the synthetic engine says, byte for byte in the shape in which vLLM 0.32 says it.

Source: vllm/entrypoints/openai/chat_completion/protocol.py and serving.py: whole answers are a model's full dump
(every field, null or not) through Starlette's JSONResponse; events of a stream hold the fields that were set.
"""

import json
from typing import Any

WORDS = (b" the", b" model", b" answers", b" from", b" its", b" documents", b" and", b" cites", b" them", b".")
FINGERPRINT = b"vllm-0.32.0-5f0c1a2b"
PROMPT_TOKENS = 86
CACHED_TOKENS = 64

JSON_HEAD = b"HTTP/1.1 %d %b\r\ndate: %b\r\nserver: uvicorn\r\ncontent-length: %d\r\ncontent-type: %b\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: %b\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
STREAM_END = b"0\r\n\r\n"

_USAGE = (
    b'{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":%d%b}%b}'
)
_COMPLETION = (
    b'{"id":"%b","object":"chat.completion","created":%d,"model":"%b","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"%b","refusal":null,"annotations":null,"audio":null,"function_call":null,'
    b'"reasoning":null},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null,'
    b'"routed_experts":null}],"service_tier":null,"system_fingerprint":"%b","usage":%b,"prompt_logprobs":null,'
    b'"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}'
)
_CHUNK = b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,"model":"%b","choices":['
_FIRST = (
    b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],'
    b'"prompt_token_ids":null,"prompt_text":null}\n\n'
)
_NEXT = b'{"index":0,"delta":{"content":"%b"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
_LAST = (
    b'{"index":0,"delta":{"content":"%b"},"logprobs":null,"finish_reason":"length","stop_reason":null,'
    b'"token_ids":null}]%b}\n\n'
)
_FINGERPRINT_FIELD = b',"system_fingerprint":"%b"' % FINGERPRINT
DONE = b"data: [DONE]\n\n"


def text(tokens: int) -> bytes:
    return b"".join(WORDS[n % len(WORDS)] for n in range(tokens))


def completion(request_id: bytes, created: int, model: bytes, content: bytes, tokens: int) -> bytes:
    return _COMPLETION % (request_id, created, model, content, FINGERPRINT, _usage(tokens, whole=True))


class Events:
    """The events of one stream: the role, one for each token, usage if it was asked for, the end."""

    def __init__(self, request_id: bytes, created: int, model: bytes, tokens: int, *, with_usage: bool):
        self._opening = _CHUNK % (request_id, created, model)
        self._tokens = tokens
        self._with_usage = with_usage

    def first(self) -> bytes:
        return self._opening + _FIRST

    def token(self, number: int, content: bytes) -> bytes:
        """number: from 0. The last one says why the answer ends."""
        if number < self._tokens - 1:
            return self._opening + _NEXT % content
        return self._opening + _LAST % (content, b"" if self._with_usage else _FINGERPRINT_FIELD)

    def usage(self) -> bytes:
        if not self._with_usage:
            return b""
        return b'%b],"usage":%b%b}\n\n' % (self._opening, _usage(self._tokens, whole=False), _FINGERPRINT_FIELD)


def _usage(tokens: int, *, whole: bool) -> bytes:
    missing = b',"created_cache_tokens":null,"multimodal_tokens":null' if whole else b""
    details = b',"completion_tokens_details":null' if whole else b""
    return _USAGE % (PROMPT_TOKENS, PROMPT_TOKENS + tokens, tokens, CACHED_TOKENS, missing, details)


def chunked(piece: bytes) -> bytes:
    """One piece of a body of unknown length, as HTTP/1.1 frames it."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def models(model: str, created: int) -> bytes:
    card = {
        "id": model, "object": "model", "created": created, "owned_by": "vllm", "root": "/model", "parent": None,
        "max_model_len": 4096, "permission": [],
    }  # fmt: skip
    return as_json({"object": "list", "data": [card]})


def error(status: int, message: str) -> bytes:
    return as_json({"error": {"message": message, "type": "NotFoundError", "param": None, "code": status}})


def as_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
