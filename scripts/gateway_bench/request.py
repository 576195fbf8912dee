"""A chat request, byte for byte as the `openai` client sends it."""

import json
from typing import Any

QUESTION = (
    "A customer writes that the pump stops after ten minutes and shows the code E4. What should she look at first, "
    "and when should she call the service?"
)
# What the `openai` client sends with every request.
HEADERS = """\
accept-encoding: gzip, deflate
connection: keep-alive
accept: application/json
content-type: application/json
user-agent: OpenAI/Python 2.54.0
x-stainless-lang: python
x-stainless-package-version: 2.54.0
x-stainless-os: Linux
x-stainless-arch: x64
x-stainless-runtime: CPython
x-stainless-runtime-version: 3.11.2
x-stainless-retry-count: 0
x-stainless-read-timeout: 600"""


def chat_request(model: str, key: str, *, stream: bool, **more: Any) -> bytes:
    body = {
        "messages": [
            {"role": "system", "content": "You are the help desk of a maker of pumps. Answer in two sentences."},
            {"role": "user", "content": QUESTION},
        ],
        "model": model,
        "max_tokens": 256,
        "temperature": 0.2,
        **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
        **more,
    }
    data = json.dumps(body).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: 127.0.0.1", *HEADERS.splitlines()]
    lines += [f"authorization: Bearer {key}", f"content-length: {len(data)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data
